"""One WebSocket to the server, for one stream: small, because the libraries' cost more to import
than the whole command. The socket stays the caller's to wait for.
"""

from __future__ import annotations

import base64
import os
import secrets
import select
import ssl
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from moorage.cli.transport import Transport, error_of, segment
from moorage.errors import Unreachable

if TYPE_CHECKING:
    import socket

BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
NOT_LEADING = 1013
PIECE = 131_072
"""Bytes read, and put into a message, at once."""
_PATIENCE = 30.0
"""Seconds for an answer, and for a server that leads."""
_FINAL, _MASKED = 0x80, 0x80
_NO_MASK = bytes(4)
"""Masks keep web pages from making a browser say what a proxy would take for something else; here
the user is who speaks, and a mask of zeros leaves the bytes as they are."""
_HEAD_LIMIT = 65_536
_AGAIN = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Closed(Exception):
    """The other side has closed the connection: the code, and a reason in words."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason or "the connection to the server was lost")
        self.code = code


class WebSocket:
    """After the handshake. `outgoing` holds what the socket has not yet taken."""

    def __init__(self, connection: socket.socket, rest: bytes) -> None:
        self.connection = connection
        self.outgoing = bytearray()
        self._incoming = bytearray(rest)
        connection.setblocking(False)

    def fileno(self) -> int:
        """To wait for."""
        return self.connection.fileno()

    def close(self) -> None:
        """End it at once."""
        self.connection.close()

    def send(self, data: bytes, kind: int = BINARY) -> None:
        """Put a message behind what is to be sent; `flush` sends it."""
        size = len(data)
        if size < 126:
            head = struct.pack(">BB", _FINAL | kind, _MASKED | size)
        elif size < 65_536:
            head = struct.pack(">BBH", _FINAL | kind, _MASKED | 126, size)
        else:
            head = struct.pack(">BBQ", _FINAL | kind, _MASKED | 127, size)
        self.outgoing += head + _NO_MASK
        self.outgoing += data

    def flush(self) -> None:
        """Send what the socket takes now. Closed."""
        try:
            while self.outgoing:
                del self.outgoing[: self.connection.send(self.outgoing)]
        except _AGAIN:
            pass
        except OSError as error:
            raise Closed(1006, error.strerror or "") from None

    def receive(self) -> Iterator[bytes]:
        """The messages that have come, maybe none; call it when the socket can be read. Closed."""
        try:
            data = self.connection.recv(PIECE)
            while isinstance(self.connection, ssl.SSLSocket) and self.connection.pending():
                data += self.connection.recv(PIECE)
        except _AGAIN:
            return
        except OSError as error:
            raise Closed(1006, error.strerror or "") from None
        if not data:
            raise Closed(1006, "")
        self._incoming += data
        yield from self.ready()

    def ready(self) -> Iterator[bytes]:
        """The messages that are complete. Closed."""
        while (found := self._frame()) is not None:
            kind, data = found
            if kind == CLOSE:
                code = int.from_bytes(data[:2], "big") if data else 1000
                raise Closed(code, data[2:].decode(errors="replace"))
            if kind == PING:
                self.send(data, PONG)
                self.flush()
            elif kind != PONG:
                yield data

    def first(self) -> bytes:
        """Wait for the first message. Closed; TimeoutError."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            for message in self.ready():
                return message
            poll = select.poll()
            poll.register(self, select.POLLIN | (select.POLLOUT if self.outgoing else 0))
            events = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
            if not events:
                raise TimeoutError
            self.flush()
            if events[self.fileno()] & ~select.POLLOUT:
                for message in self.receive():
                    return message

    def _frame(self) -> tuple[int, bytes] | None:
        held = self._incoming
        if len(held) < 2:
            return None
        size, start = held[1] & 0x7F, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            start += width
            if len(held) < start:
                return None
            size = int.from_bytes(held[2:start], "big")
        if len(held) < start + size:
            return None
        kind, data = held[0] & 0x0F, bytes(held[start : start + size])
        del held[: start + size]
        return kind, data


def open_websocket(transport: Transport, path: str) -> WebSocket:
    """Connect to the present server. MoorageError where it refuses."""
    connection = transport.dial()
    near = connection.sock
    assert near is not None
    near.settimeout(_PATIENCE)
    url = urlsplit(transport.address.url)
    lines = [
        f"GET {url.path}{path} HTTP/1.1",
        f"Host: {url.netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(secrets.token_bytes(16)).decode()}",
        "Sec-WebSocket-Version: 13",
        f"Authorization: Bearer {transport.address.token}",
    ]
    try:
        near.sendall("\r\n".join([*lines, "", ""]).encode())
        head, rest = _head(near)
        status = int(head.split(None, 2)[1])
        if status != 101:
            near.settimeout(1.0)
            raise error_of(status, rest or near.recv(PIECE))
    except (OSError, ValueError, IndexError) as error:
        near.close()
        raise Unreachable(f"no stream from {transport.address.place}: {error}") from None
    except BaseException:
        near.close()
        raise
    return WebSocket(near, rest)


def stream_path(run: str) -> str:
    """Where streams to a run are opened."""
    return f"/v1/runs/{segment(run)}/streams"


def _head(near: socket.socket) -> tuple[bytes, bytes]:
    """The reply's head, and what came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = near.recv(PIECE)
        if not chunk or len(data) > _HEAD_LIMIT:
            raise ConnectionResetError("the server does not answer as one of moorage does")
        data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def read(descriptor: int) -> bytes | None:
    """What can be read now; empty at the end, None where nothing has come."""
    try:
        return os.read(descriptor, PIECE)
    except BlockingIOError:
        return None
    except OSError:  # a terminal that is gone
        return b""
