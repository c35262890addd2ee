"""Lines to and from the keeper. What is said in one round of the loop goes out in one piece: a
send wakes the other side, and costs more than all else that is done for a line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

_PIECE = 64 * 1024


class Wire(asyncio.BufferedProtocol):
    """One connection. `received` gets each line, `lost` is called once when it has ended."""

    def __init__(self, received: Callable[[bytes], None], lost: Callable[[Wire], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._received, self._lost = received, lost
        self._buffer = memoryview(bytearray(_PIECE))
        self._rest = b""
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._ended = self._loop.create_future()

    def say(self, line: bytes) -> None:
        """Send it, after what was said before."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(line)

    async def close(self) -> None:
        """Send what was said, then hang up."""
        self._flush()
        if self._transport is not None:
            self._transport.close()
        await self.ended()

    async def ended(self) -> None:
        """Return when the connection is gone."""
        await asyncio.shield(self._ended)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and self._transport is not None:
            unsent.append(b"")
            self._transport.write(b"\n".join(unsent))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BaseProtocol."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _error: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        self._transport = None
        self._ended.set_result(None)
        self._lost(self)

    def get_buffer(self, _wanted: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        """See asyncio.BufferedProtocol."""
        *lines, self._rest = (self._rest + self._buffer[:size]).split(b"\n")
        for line in lines:
            self._received(line)


async def dial(
    home: Path, received: Callable[[bytes], None], lost: Callable[[Wire], None]
) -> Wire | None:
    """A connection to the keeper of the agent in `home`; None where none listens."""
    directory = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # The short way round the 107 bytes that a socket's address may have.
        path = f"/proc/self/fd/{directory}/keeper.sock"
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_unix_connection(lambda: Wire(received, lost), path)
        return wire
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    finally:
        os.close(directory)
