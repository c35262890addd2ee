"""Requests that last: the server says how far it is, line by line, and the last line is the
answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from moorage.cli.progress import Bar
from moorage.cli.transport import Query, Transport, error_from
from moorage.decoding import from_json
from moorage.errors import Unavailable
from moorage.protocol.api import IN_BYTES, Progress, Told
from moorage.units import format_size

SILENCE = 60.0
"""Seconds without a line after which the server counts as lost: it sends two a second."""

T = TypeVar("T")
OnProgress = Callable[[Progress], None]


def long_call(
    transport: Transport,
    path: str,
    reply: type[T],
    query: Query,
    on_progress: OnProgress | None = None,
) -> T:
    """One POST that may be repeated, whose reply comes as lines."""
    asked = {**query, "progress": True}
    with transport.stream(path, query=asked, patience=SILENCE, method="POST") as stream:
        rest = b""
        for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                found = decoded(line, reply, on_progress)
                if found is not None:
                    return found
    raise Unavailable(f"the server at {transport.address.place} ended before its answer")


def decoded(line: bytes, reply: type[T], on_progress: OnProgress | None) -> T | None:
    """The answer, where this is the last line; MoorageError where that is an error."""
    told = _told(line, on_progress)
    return from_json(told.reply, reply) if told.reply else None


def before_bytes(
    chunks: Iterable[bytes], on_progress: OnProgress | None
) -> tuple[int, Iterator[bytes]]:
    """Reads the lines before a backup: about how many bytes follow, and they."""
    coming = iter(chunks)
    rest = b""
    for chunk in coming:
        rest += chunk
        while b"\n" in rest:
            line, rest = rest.split(b"\n", 1)
            told = _told(line, on_progress)
            if told.size is not None:
                return told.size, _after(rest, coming)
    raise Unavailable("the server ended before the backup began")


def _after(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _told(line: bytes, on_progress: OnProgress | None) -> Told:
    told = from_json(line, Told)
    if told.error is not None:
        raise error_from(told.error)
    if told.progress is not None and on_progress is not None:
        on_progress(told.progress)
    return told


class Gauge:
    """Draws `checking content 3.1 MB of 12 MB, 40 MB/s, 2s left` on a terminal, nothing in a pipe.

    A context manager; the line is gone afterwards. Each part of the work has a rate of its own.
    """

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._bar = Bar(verb)
        self._what = ""

    def show(self, progress: Progress) -> None:
        """How far it is."""
        if progress.what != self._what:
            self._what = progress.what
            amount = format_size if progress.what in IN_BYTES else _count
            self._bar = Bar(f"{self._verb} {progress.what}", amount=amount)
        if progress.what:
            self._bar.show(progress.done, progress.total)

    def __enter__(self) -> Gauge:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, trace)


def _count(number: float) -> str:
    return f"{number:.0f}"
