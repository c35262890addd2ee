"""Where a server listens besides loopback: `ADDRESS[:PORT]`, always with TLS."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from moorage.backends.ssh.onhost.check import interface_addresses
from moorage.errors import InvalidInput, Problem, Unavailable

PORT = 7321
"""Where none is said."""
OFF = "off"
_ALL = ("0.0.0.0", "::")  # noqa: S104 - what a user may write
_NOWHERE = ("192.0.2.1", 9)
"""An address for documentation: nothing is sent to find the way there."""


@dataclass(frozen=True, slots=True)
class Place:
    """One of them. `host` is a name or an address, which clients dial too."""

    host: str
    port: int

    @property
    def hosts(self) -> list[str]:
        """Under which others reach it, the likeliest first."""
        if self.host not in _ALL:
            return [self.host]
        wanted = 4 if self.host == _ALL[0] else 0
        found = [a for a in interface_addresses() if not wanted or ip_address(a).version == wanted]
        first = _outward()
        return sorted(found, key=lambda address: address != first)

    @property
    def urls(self) -> list[str]:
        """What they dial."""
        return [f"https://[{h}]:{self.port}" if ":" in h else f"https://{h}:{self.port}"
                for h in self.hosts]  # fmt: skip

    def bind(self) -> list[socket.socket]:
        """Listen there. Unavailable."""
        try:
            found = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise self._refused(error.strerror) from None
        made: list[socket.socket] = []
        for family, kind, _, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind, socket.IPPROTO_TCP)
            made.append(listening)
            listening.setblocking(False)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                both = self.host == _ALL[1]
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
            try:
                listening.bind(address)
                listening.listen(1024)
            except OSError as error:
                for one in made:
                    one.close()
                raise self._refused(error.strerror) from None
        return made

    def _refused(self, why: str | None) -> Unavailable:
        return Unavailable(
            f"cannot listen on {self.host} port {self.port}: {why}; choose another --listen "
            "(off: loopback only)"
        )


def parse(texts: Sequence[str]) -> list[Place]:
    """InvalidInput names each that is no place."""
    places, wrong = [], []
    for text in texts:
        place = _place(text)
        if place is None:
            wrong.append(
                Problem(
                    f"{text!r} is no place to listen on",
                    "write ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT, such as 10.0.0.5:7321",
                    field="listen",
                )
            )
        elif place not in places:
            places.append(place)
    if wrong:
        raise InvalidInput(*wrong)
    return places


def _place(text: str) -> Place | None:
    host, port = text.strip(), str(PORT)
    if host.startswith("["):
        host, _, after = host[1:].partition("]")
        port = after.removeprefix(":") or port
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        return None
    with suppress(ValueError):
        return Place(str(ip_address(host)), int(port))
    plain = host.replace("-", "").replace(".", "")
    is_name = plain.isalnum() and plain.isascii() and not plain.isdecimal()
    return Place(host.lower(), int(port)) if is_name and not host.startswith("-") else None


def _outward() -> str:
    """This machine's address on the way to others; empty where there is none."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect(_NOWHERE)
        return str(way.getsockname()[0])
    return ""
