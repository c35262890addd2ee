"""The agent's part when somebody looks into a job: it connects the job's end with the server, by a
WebSocket of its own, and passes bytes on."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from moorage.agent.claims import Claims
from moorage.agent.keeping import SpawnError
from moorage.agent.upkeep import Processes
from moorage.agent.uplink.jobports import PIECE, Ends, connect
from moorage.agent.uplink.link import log
from moorage.decoding import from_json
from moorage.errors import Conflict, MoorageError, Unavailable
from moorage.protocol import streams
from moorage.protocol.agent import OpenStream
from moorage.protocol.streams import Opened, Port

_PATIENCE = 10.0
"""Seconds for the job's end to come."""
_DIRECTORY = "visits"

Dial = Callable[[str], Awaitable[ClientConnection]]


class Visits:
    """All streams of this node. `home`: the agent's; `dial`: a WebSocket to the server."""

    def __init__(self, home: Path, claims: Claims, processes: Processes, dial: Dial) -> None:
        self._place = home / _DIRECTORY
        self._claims, self._processes, self._dial = claims, processes, dial

    def tidy(self) -> None:
        """Remove what an agent that was killed left."""
        self._place.mkdir(mode=0o700, exist_ok=True)
        for path in self._place.iterdir():
            path.unlink(missing_ok=True)

    async def serve(self, message: OpenStream) -> None:
        """One, from the server's wish to its end. Never raises."""
        try:
            try:
                ends, opened = await self._open(message)
            except (MoorageError, OSError) as error:
                code = error.code if isinstance(error, MoorageError) else Unavailable.code
                ends, opened = None, Opened(code, str(error))
            try:
                await self._connect(message.id, ends, opened)
            finally:
                if ends is not None:
                    await _hang_up(ends[1])
        except (OSError, EOFError, WebSocketException, TimeoutError) as error:
            log.warning("a stream to %s broke: %s", message.key, error or type(error).__name__)

    async def _open(self, message: OpenStream) -> tuple[Ends, Opened]:
        claim = self._claims.get(message.key)
        if claim is None or claim.state != "running":
            raise Conflict("the job's process does not run here")
        if isinstance(message.purpose, Port):
            own = claim.launch is not None and claim.launch.docker
            return await connect(claim.directory, message.purpose.port, own), Opened()
        ends = await self._enter(message)
        try:
            async with asyncio.timeout(_PATIENCE):
                line = await ends[0].readline()
            opened = from_json(line, Opened)
        except (TimeoutError, ValueError):
            await _hang_up(ends[1])
            raise Unavailable("the way into the job does not open; see keeper.log") from None
        return ends, opened

    async def _enter(self, message: OpenStream) -> Ends:
        """The keeper starts a process that connects to us, and is told what is wanted."""
        came: asyncio.Future[Ends] = asyncio.get_running_loop().create_future()

        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if came.done():
                writer.close()
            else:
                came.set_result((reader, writer))

        server = await asyncio.start_unix_server(take, sock=self._listen(message.id), limit=PIECE)
        try:
            await self._processes.enter(message.key, self._place, message.id)
            async with asyncio.timeout(_PATIENCE):
                ends = await came
        except SpawnError as error:
            raise Conflict(str(error)) from None
        except TimeoutError:
            raise Unavailable("the way into the job does not open; see keeper.log") from None
        finally:
            came.cancel()
            server.close()
            (self._place / message.id).unlink(missing_ok=True)
        ends[1].write(msgspec.json.encode(message.purpose) + b"\n")
        return ends

    def _listen(self, name: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        place = os.open(self._place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # The short way round the 107 bytes that a socket's address may have.
            listener.bind(f"/proc/self/fd/{place}/{name}")
            listener.listen(1)
        except OSError:
            listener.close()
            raise
        finally:
            os.close(place)
        listener.setblocking(False)
        return listener

    async def _connect(self, number: str, ends: Ends | None, opened: Opened) -> None:
        async with await self._dial(number) as server:
            await server.send(streams.encode(opened))
            if ends is not None and not opened.code:
                await _splice(server, *ends)


async def _splice(
    server: ClientConnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Pass bytes on until either side has ended, or both directions have."""
    inward = asyncio.ensure_future(_inward(server, writer))
    outward = asyncio.ensure_future(_outward(server, reader))
    await asyncio.wait({inward, outward}, return_when=asyncio.FIRST_COMPLETED)
    inward.cancel()
    outward.cancel()
    for error in await asyncio.gather(inward, outward, return_exceptions=True):
        if isinstance(error, Exception) and not isinstance(error, (ConnectionClosed, OSError)):
            raise error


async def _inward(server: ClientConnection, writer: asyncio.StreamWriter) -> None:
    """Returns when the client is gone; the end of what it sends is passed on."""
    async for data in server:
        if data:
            writer.write(data if isinstance(data, bytes) else data.encode())
            await writer.drain()
        elif writer.can_write_eof():
            writer.write_eof()


async def _outward(server: ClientConnection, reader: asyncio.StreamReader) -> None:
    """Returns when the job's end has closed."""
    while data := await reader.read(PIECE):
        await server.send(data)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
