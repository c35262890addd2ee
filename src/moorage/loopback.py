"""Who listens on a port of this machine: any user may take one that is free, also one that a
server of ours has just let go, and would then be told our token."""

from __future__ import annotations

import os
import socket
import struct
import sys

_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = 0x1
_ERROR = 2
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_QUESTION = struct.Struct("=BBBBI")  # family, protocol, extensions, padding, states
_ANYTHING = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # interface, cookie
_USER = 64
"""Where the owner is in an answer's message: after family, state, two timers, the addresses of
the socket and three more words."""
_LISTENING = "0A"
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_MAPPED = bytes(10) + b"\xff\xff"
"""What ::ffff:127.0.0.1 begins with."""


def stranger(connection: socket.socket, trusted: int | None = None) -> str | None:
    """Who answers on the other end of a connection to a loopback address, in words, unless that
    is this user, root or the `trusted`; None where all is well, or the kernel does not tell."""
    host, port = connection.getpeername()[:2]
    address = socket.inet_pton(connection.family, host)
    owners = _asked(connection.family, address, port)
    if owners is None:
        owners = _looked_up(_plain(address), port)
    if owners is None:
        return None
    if not owners:
        return f"nobody listens on port {port} any more"
    strangers = [uid for uid in owners if uid not in (0, os.geteuid(), trusted)]
    return f"port {port} is now user {strangers[0]}'s" if strangers else None


def _asked(family: int, address: bytes, port: int) -> list[int] | None:
    """Who owns the socket that the kernel would connect to, from the kernel itself, in a tenth
    of a millisecond; None where it does not answer such questions."""
    ports = struct.pack("!HH", port, 0)
    place = ports + address.ljust(16, b"\0") + bytes(16) + _ANYTHING
    question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + place
    header = _HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
            kernel.settimeout(1.0)
            kernel.send(header + question)
            answer = kernel.recv(4096)
        if _HEADER.unpack_from(answer)[1] == _ERROR:
            return None  # no such socket, and a kernel without this part, read the same
        owner: int = struct.unpack_from("=I", answer, _HEADER.size + _USER)[0]
    except (OSError, AttributeError, struct.error):
        return None
    return [owner]


def _looked_up(address: bytes, port: int) -> list[int] | None:
    """The same from the table of all sockets, which takes the kernel ten milliseconds and more;
    None: not to be known."""
    rows = _listeners(port)
    if rows is None:
        return None
    owners = [uid for place, uid in rows if place == address]
    return owners or [uid for place, uid in rows if not any(place)]


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
