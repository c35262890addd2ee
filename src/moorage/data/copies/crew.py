"""Several threads on one pile of work, which whoever gave it can walk away from.

A thread that waits for a store cannot be interrupted, so nobody waits for it: when the work is
stopped, or one piece failed, or nothing moved for too long, the others are told to end and left.
They hold nothing but what they were given.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import Generic, TypeVar

from moorage.data.base import SourceError
from moorage.data.stopping import breaking

T = TypeVar("T")


class Stopped(SourceError):
    """The work was broken off from outside."""

    def __init__(self, text: str = "stopped") -> None:
        super().__init__(text)


class Stalled(Exception):
    """Nothing moved for too long."""


class Crew(Generic[T]):
    """`work` is called for each item, in `count` threads. It calls `check` between two things that
    take long, and `moved` when something has."""

    def __init__(self, work: Callable[[T], None], count: int) -> None:
        self._work, self._count = work, count
        self._ended = threading.Event()
        self._said: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._last = time.monotonic()

    def check(self) -> None:
        """Stopped, where nobody waits any more."""
        if self._ended.is_set():
            raise Stopped

    def moved(self) -> None:
        """Something happened."""
        self._last = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Wait, unless all is over. Stopped."""
        if self._ended.wait(seconds):
            raise Stopped

    def run(self, items: Iterable[T], patience: float | None = None) -> None:
        """Until all is done, or the first error. `patience`: seconds without a move after which it
        is given up. Stopped, Stalled."""
        rest, lock = iter(items), threading.Lock()
        self._last = time.monotonic()

        def pull() -> None:
            try:
                while not self._ended.is_set():
                    with lock:
                        item = next(rest, self)
                    if item is self:
                        break
                    self._work(item)  # type: ignore[arg-type]  # it is no `self`
                self._said.put(None)
            except BaseException as error:
                self._said.put(error)

        for _ in range(self._count):
            threading.Thread(target=copy_context().run, args=(pull,), daemon=True).start()
        try:
            with breaking(lambda: self._said.put(Stopped())):
                for _ in range(self._count):
                    self._next(patience)
        finally:
            self._ended.set()

    def _next(self, patience: float | None) -> None:
        while True:
            left = None if patience is None else self._last + patience - time.monotonic()
            if left is not None and left <= 0:
                raise Stalled
            try:
                error = self._said.get(timeout=left)
            except queue.Empty:
                continue
            if error is not None:
                raise error
            return


def aside(work: Callable[[], T]) -> T:
    """What it gives, by a thread that is left alone with it where the work is stopped. Stopped."""
    given: list[T] = []
    Crew[Callable[[], T]](lambda one: given.append(one()), 1).run([work])
    return given[0]
