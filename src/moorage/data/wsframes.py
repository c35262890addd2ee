"""A WebSocket's client side after its handshake, with nothing between its messages and those who
read and write bytes: no task wakes up, and no message is collected, for bytes that pass through.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

_BINARY, _CLOSE, _PING, _PONG = 2, 8, 9, 10
_FINAL, _MASKED = 0x80, 0x80
_NO_MASK = bytes(4)
"""Masks are against what web pages could make a proxy believe; zeros leave the bytes as they
are."""
_SHORT, _MEDIUM = 126, 127
_CONTROL = 8
"""Of the frames' kinds, the first that is no data."""


class Frames(asyncio.Protocol):
    """`received` is called with bytes, cut anywhere; `ended` once; `hold` with True where nothing
    more shall be sent for a while, and with False when it may go on."""

    def __init__(
        self,
        received: Callable[[bytes], None],
        ended: Callable[[], None],
        hold: Callable[[bool], None],
    ) -> None:
        self._received, self._ended, self._hold = received, ended, hold
        self._transport: asyncio.Transport | None = None
        self._kind = 0
        self._left = 0
        self._head = b""
        self._control = b""

    def begin(self, transport: asyncio.Transport) -> None:
        """Take over a transport whose handshake is done."""
        self._transport = transport
        transport.set_protocol(self)

    def send(self, data: bytes, kind: int = _BINARY) -> None:
        """One message."""
        if self._transport is None or self._transport.is_closing():
            return
        size = len(data)
        if size < _SHORT:
            head = struct.pack(">BB", _FINAL | kind, _MASKED | size)
        elif size < 65_536:
            head = struct.pack(">BBH", _FINAL | kind, _MASKED | _SHORT, size)
        else:
            head = struct.pack(">BBQ", _FINAL | kind, _MASKED | _MEDIUM, size)
        self._transport.write(b"".join((head, _NO_MASK, data)))

    def close(self) -> None:
        """Say that it is over, and hang up when what was sent has gone."""
        if self._transport is not None and not self._transport.is_closing():
            self.send(struct.pack(">H", 1000), _CLOSE)
            self._transport.close()

    def read(self, going_on: bool) -> None:
        """Go on reading, or wait."""
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.resume_reading if going_on else self._transport.pause_reading)()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        while data:
            if not self._left:
                data = self._begin(self._head + data)
                continue
            part, data = data[: self._left], data[self._left :]
            self._left -= len(part)
            if self._kind < _CONTROL:
                self._received(part)
                continue
            self._control += part
            if not self._left:
                self._told()

    def _begin(self, data: bytes) -> bytes:
        """Read a frame's head; what comes after it, or nothing where some of it is missing."""
        long = data[1] & 0x7F if len(data) > 1 else 0
        length = 2 + {_SHORT: 2, _MEDIUM: 8}.get(long, 0)
        if len(data) < length:
            self._head = data
            return b""
        self._head = b""
        self._kind = data[0] & 0x0F
        self._left = long if length == 2 else int.from_bytes(data[2:length], "big")
        if not self._left and self._kind >= _CONTROL:
            self._told()
        return data[length:]

    def _told(self) -> None:
        """A whole message about the connection."""
        told, self._control = self._control, b""
        if self._kind == _PING:
            self.send(told, _PONG)
        elif self._kind == _CLOSE:
            self.close()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._hold(True)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._hold(False)

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._ended()
