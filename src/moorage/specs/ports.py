"""Ports of a job, and which port of the user's machine each is while the run is attached."""

from __future__ import annotations

from msgspec import Struct

from moorage.units import BadValue

LARGEST = 65_535


class Port(Struct, frozen=True, omit_defaults=True):
    """`inside` of the job is `outside` of the user's machine; None: any that is free there."""

    inside: int
    outside: int | None = None

    def __str__(self) -> str:
        return f"{self.outside or '*'}:{self.inside}"


def parse_port(text: str) -> Port:
    """`8080`, `80:8080` or `*:8080`. BadValue."""
    outside, colon, inside = text.partition(":")
    if not colon:
        number = _number(text)
        return Port(number, number)
    return Port(_number(inside), None if outside == "*" else _number(outside))


def _number(text: str) -> int:
    plain = text.isascii() and text.isdigit() and len(text) <= 5
    if not plain or not 0 < int(text) <= LARGEST:
        raise BadValue(text, f"a port from 1 to {LARGEST}")
    return int(text)
