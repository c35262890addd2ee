"""Streams of a run, as the verbs use them: open one, pass bytes on."""

from __future__ import annotations

import os
import select
import time

from moorage.cli.client import Client
from moorage.cli.transport import error_from
from moorage.cli.websocket import (
    NOT_LEADING,
    PIECE,
    Closed,
    WebSocket,
    open_websocket,
    read,
    stream_path,
)
from moorage.errors import Unavailable, Unreachable
from moorage.protocol import streams
from moorage.protocol.api import ErrorBody
from moorage.protocol.streams import Opened, Purpose, StreamRequest

HELD = 4 * PIECE
"""Bytes held for a side that does not take them; the other is not read meanwhile."""
_PATIENCE = 15.0
"""Seconds for which a server that leads is looked for."""
_PAUSE = 0.2


def open_stream(
    client: Client, run: str, purpose: Purpose, *, rank: int = 0, job: int | None = None
) -> tuple[WebSocket, Opened]:
    """A stream to a rank of a run. MoorageError, with the reason of whoever refuses it."""
    request = streams.encode(StreamRequest(purpose, job, rank))
    deadline = time.monotonic() + _PATIENCE
    while True:
        server = open_websocket(client.transport, stream_path(run))
        server.send(request)
        try:
            opened = streams.decode_opened(server.first())
        except TimeoutError:
            server.close()
            raise Unavailable("the server does not open the stream") from None
        except Closed as closed:
            server.close()
            if closed.code != NOT_LEADING or time.monotonic() > deadline:
                raise Unreachable(f"the stream was not opened: {closed}") from None
            client.transport.leave(client.address.url)
            select.select([], [], [], _PAUSE)  # nothing tells a client who leads by now
            continue
        if opened.code:
            server.close()
            raise error_from(ErrorBody(opened.code, opened.error))
        return server, opened


def relay(server: WebSocket, source: int, sink: int) -> None:
    """Pass bytes on until the other side has closed; the end of `source` is passed on, too. Both
    descriptors must not block. Closed tells how it ended only where that was no orderly end."""
    held = bytearray()
    open_source = True
    for message in server.ready():
        held += message
    try:
        while True:
            poll = select.poll()
            events = select.POLLIN if len(held) < HELD else 0
            poll.register(server, events | (select.POLLOUT if server.outgoing else 0))
            if open_source and len(server.outgoing) < HELD:
                poll.register(source, select.POLLIN)
            if held:
                poll.register(sink, select.POLLOUT | poll_of(source, sink, open_source))
            ready = dict(poll.poll())
            if held and sink in ready:
                write(sink, held)
            if open_source and ready.get(source, 0) & ~select.POLLOUT:
                open_source = _forward(server, source)
            if ready.get(server.fileno(), 0) & ~select.POLLOUT:
                for message in server.receive():
                    held += message
            server.flush()
    except Closed as closed:
        drain(sink, held)
        if closed.code != 1000:
            raise


def poll_of(source: int, sink: int, reading: bool) -> int:
    """One descriptor may be both."""
    return select.POLLIN if reading and source == sink else 0


def _forward(server: WebSocket, source: int) -> bool:
    data = read(source)
    if data is not None:
        server.send(data)
    return data != b""


def write(sink: int, held: bytearray) -> None:
    """What it takes now. BrokenPipeError where nobody reads any more."""
    try:
        del held[: os.write(sink, memoryview(held)[:PIECE].tobytes())]
    except BlockingIOError:
        return
    except OSError as error:  # a terminal that is gone, a connection that was reset
        raise BrokenPipeError(error.errno, error.strerror) from None


def drain(sink: int, held: bytearray) -> None:
    """All of it, however long that takes."""
    os.set_blocking(sink, True)
    while held:
        write(sink, held)
