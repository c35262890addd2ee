"""Replies that last, over breaks of the connection: output and events go on where they were."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from select import select

from moorage.cli.transport import Query, Transport
from moorage.decoding import from_json
from moorage.errors import Unreachable
from moorage.protocol.api import Event

DELAYS = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each try to reach a server that went away: half a minute covers its restart."""
LASTING = 5.0
"""Seconds after which a reply that breaks off is no failure to reach the server."""
OFFSET_HEADER = "Moorage-Log-Offset"
"""Where in the output the first byte of a reply lies."""


class Reconnect:
    """Counts failures in a row; `pause` waits, or raises the error when it is one too many."""

    def __init__(self) -> None:
        self._failures = 0
        self._opened: float | None = None

    def opened(self) -> None:
        """A reply has begun. One that lasts counts, also where it brings nothing."""
        self._opened = time.monotonic()

    def succeeded(self) -> None:
        """The server answers again."""
        self._failures = 0

    @property
    def delay(self) -> float:
        """Seconds to wait before the next try."""
        return DELAYS[min(self._failures, len(DELAYS) - 1)]

    def pause(self, error: Unreachable) -> None:
        """Wait before the next try."""
        if self._opened is not None and time.monotonic() - self._opened > LASTING:
            self._failures = 0
        self._opened = None
        if self._failures >= len(DELAYS):
            raise error
        delay = self.delay
        self._failures += 1
        select([], [], [], delay)  # nothing tells a client that a server is back


class Output:
    """What a job printed, as chunks of bytes. Iterating again, after an exception, goes on at the
    byte that was reached."""

    def __init__(
        self,
        transport: Transport,
        path: str,
        query: Query,
        is_over: Callable[[float], bool] | None = None,
        on_gap: Callable[[int], None] | None = None,
    ) -> None:
        self._transport = transport
        self._path = path
        self._query = query
        self._is_over = is_over
        """Waits for the end of the run, for some seconds; None: the end of a reply is the end."""
        self._on_gap = on_gap
        self.offset: int | None = None
        """Where the next byte lies; None before the first reply."""

    def __iter__(self) -> Iterator[bytes]:
        """While following, a reply that broke off, or that ended before the run did (the server
        stops, the node is away), is asked for again; otherwise a break is an error."""
        tries = Reconnect()
        over = self._is_over is None
        while True:
            try:
                for chunk in self._read(tries):
                    tries.succeeded()
                    yield chunk
                if over or self._is_over is None:
                    return
                over = self._is_over(tries.delay)
            except Unreachable as error:
                if self._is_over is None:
                    raise
                tries.pause(error)

    def _read(self, tries: Reconnect) -> Iterator[bytes]:
        query: Query = self._query
        if self.offset is not None:
            query = {**query, "since": None, "offset": self.offset}
        with self._transport.stream(self._path, query=query) as stream:
            expected = self.offset or 0
            tries.opened()
            began = int(stream.header(OFFSET_HEADER) or expected)
            if self._on_gap and query.get("since") is None and began > expected:
                self._on_gap(began - expected)
            self.offset = began
            for chunk in stream:
                self.offset += len(chunk)
                yield chunk


def follow_events(
    transport: Transport,
    since: int | None,
    run: int | str | None,
    on_open: Callable[[], None] | None = None,
) -> Iterator[Event]:
    """Events for ever, each once: after a break they go on after the last one seen."""
    tries = Reconnect()
    while True:
        query = {"since": since, "run": run, "follow": True}
        try:
            with transport.stream("/v1/events", query=query) as stream:
                tries.opened()
                if on_open:
                    on_open()
                for event in decode_events(stream):
                    tries.succeeded()
                    since = event.seq
                    yield event
            raise Unreachable(f"the server at {transport.address.place} ended the stream")
        except Unreachable as error:
            tries.pause(error)


def decode_events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """The events of a `text/event-stream`; comments and fields other than `data` are skipped."""
    waiting = b""
    for chunk in chunks:
        *blocks, waiting = (waiting + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        for block in blocks:
            data = [
                line[5:].removeprefix(b" ")
                for line in block.split(b"\n")
                if line.startswith(b"data:")
            ]
            if data:
                yield from_json(b"\n".join(data), Event)
