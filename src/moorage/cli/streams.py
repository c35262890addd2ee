"""Replies that last, over breaks of the connection: output and events go on where they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event as Flag

import msgspec

from moorage.cli.transport import Query, Stream, Transport
from moorage.errors import Unreachable
from moorage.protocol.api import Event

DELAYS = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each try to reach a server that went away: half a minute covers its restart."""
OFFSET_HEADER = "Moorage-Log-Offset"
"""Where in the output the first byte of a reply lies."""


class Reconnect:
    """Counts failures in a row; `pause` waits, or raises the error when it is one too many."""

    def __init__(self) -> None:
        self._failures = 0
        self._never = Flag()

    def succeeded(self) -> None:
        """The server answers again."""
        self._failures = 0

    def pause(self, error: Unreachable) -> None:
        """Wait before the next try."""
        if self._failures >= len(DELAYS):
            raise error
        delay = DELAYS[self._failures]
        self._failures += 1
        self._never.wait(delay)  # nothing tells a client that a server is back


def read_logs(
    transport: Transport, path: str, query: Query, on_gap: Callable[[int], None] | None = None
) -> Iterator[bytes]:
    """The output of a job as chunks. While following, a broken connection is opened again at the
    offset reached; without it, a break is an error."""
    offset: int | None = None
    tries = Reconnect()
    while True:
        asked = {**query, "offset": offset}
        if offset is not None:
            asked["since"] = None
        try:
            with transport.stream("GET", path, query=asked) as stream:
                began = int(stream.header(OFFSET_HEADER) or offset or 0)
                expected = offset or 0
                if on_gap and query.get("since") is None and began > expected:
                    on_gap(began - expected)
                offset = began
                for chunk in stream:
                    tries.succeeded()
                    offset += len(chunk)
                    yield chunk
                return
        except Unreachable as error:
            if not query.get("follow"):
                raise
            tries.pause(error)


def follow_events(
    transport: Transport, since: int | None, run: int | str | None
) -> Iterator[Event]:
    """Events for ever, each once: after a break they go on after the last one seen."""
    tries = Reconnect()
    while True:
        query = {"since": since, "run": run, "follow": True}
        try:
            with transport.stream("GET", "/v1/events", query=query) as stream:
                for event in decode_events(stream):
                    tries.succeeded()
                    since = event.seq
                    yield event
            raise Unreachable(f"the server at {transport.address.place} ended the stream")
        except Unreachable as error:
            tries.pause(error)


def decode_events(stream: Stream | Iterator[bytes]) -> Iterator[Event]:
    """The events of a `text/event-stream`; comments and fields other than `data` are skipped."""
    decoder = msgspec.json.Decoder(Event)
    waiting = b""
    for chunk in stream:
        *blocks, waiting = (waiting + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        for block in blocks:
            data = [
                line[5:].removeprefix(b" ")
                for line in block.split(b"\n")
                if line.startswith(b"data:")
            ]
            if data:
                yield decoder.decode(b"\n".join(data))
