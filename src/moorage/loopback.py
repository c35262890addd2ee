"""Who listens on a port of this machine: any user may take one that is free, also one that a
server of ours has just let go, and would then be told our token."""

from __future__ import annotations

import os
import socket
import sys

_LISTENING = "0A"
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_MAPPED = bytes(10) + b"\xff\xff"
"""What ::ffff:127.0.0.1 begins with."""


def stranger(connection: socket.socket) -> str | None:
    """Who answers on the other end of a connection to a loopback address, in words, unless that
    is this user or root; None where all is well, or the kernel does not tell."""
    host, port = connection.getpeername()[:2]
    rows = _listeners(port)
    if rows is None:
        return None
    address = _plain(socket.inet_pton(connection.family, host))
    owners = [uid for place, uid in rows if place == address]
    owners = owners or [uid for place, uid in rows if not any(place)]
    if not owners:
        return f"nobody listens on port {port} any more"
    strangers = [uid for uid in owners if uid not in (0, os.geteuid())]
    return f"port {port} is now user {strangers[0]}'s" if strangers else None


def _listeners(port: int) -> list[tuple[bytes, int]] | None:
    """Address and user of each socket that listens on that port; None: not to be known."""
    found = []
    seen = False
    for table in _TABLES:
        try:
            with open(table) as file:
                lines = file.read().splitlines()[1:]
        except OSError:  # no IPv6, or no /proc
            continue
        seen = True
        for line in lines:
            fields = line.split(maxsplit=8)
            place, _, number = fields[1].partition(":")
            if fields[3] == _LISTENING and int(number, 16) == port:
                found.append((_address(place), int(fields[7])))
    return found if seen else None


def _address(text: str) -> bytes:
    """From hexadecimal words in the machine's own byte order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return _plain(b"".join(word.to_bytes(4, sys.byteorder) for word in words))


def _plain(address: bytes) -> bytes:
    return address.removeprefix(_MAPPED)
