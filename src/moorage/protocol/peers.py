"""How the ranks of an attempt reach each other by ssh."""

from __future__ import annotations

from msgspec import Struct


class Peer(Struct, frozen=True, omit_defaults=True):
    """One rank: its node's name and address, and the account and port of its SSH server."""

    name: str
    address: str
    user: str
    port: int
    problem: str = ""
    """Why there is none; one line for the user."""


class Peers(Struct, frozen=True):
    """All ranks, in their order, and the secret of this attempt that makes all keys of it."""

    secret: bytes
    ranks: list[Peer]

    def __repr__(self) -> str:
        return f"Peers({len(self.ranks)} ranks)"
