"""The output of a job with several ranks as one: whole lines, each with its rank before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue

from moorage.cli.client import Client

Chunks = Iterable[bytes]


Read = Callable[[Client, int], Chunks]
"""Gives the output of one rank."""
Lines = SimpleQueue[bytes | BaseException | None]
"""None: one rank has no more."""


def in_turn(client: Client, ranks: int, read: Read) -> Iterator[bytes]:
    """One rank after the other, as far as there is output."""
    for rank in range(ranks):
        yield from _prefixed(rank, read(client, rank))


class Merged:
    """In the order in which lines come, each rank on a connection of its own. Iterating again,
    after an exception, goes on."""

    def __init__(self, client: Client, ranks: int, read: Read) -> None:
        self._lines: Lines = SimpleQueue()
        self._left = ranks
        for rank in range(ranks):
            work = (client, rank, read, self._lines)
            threading.Thread(target=_follow, args=work, daemon=True).start()

    def __iter__(self) -> Iterator[bytes]:
        while self._left:
            line = self._lines.get()
            if isinstance(line, BaseException):
                raise line
            if line is None:
                self._left -= 1
            else:
                yield line


def _follow(client: Client, rank: int, read: Read, lines: Lines) -> None:
    """On a thread of its own, which ends with the program where nobody reads any more."""
    try:
        with Client(home=client.home) as own:
            for line in _prefixed(rank, read(own, rank)):
                lines.put(line)
    except BaseException as error:
        lines.put(error)
    else:
        lines.put(None)


def _prefixed(rank: int, chunks: Chunks) -> Iterator[bytes]:
    """Whole lines; the last one gets its end where it had none."""
    mark, rest = f"[rank {rank}] ".encode(), b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if whole:
            yield b"".join(mark + line + b"\n" for line in whole)
    if rest:
        yield mark + rest + b"\n"
