"""Work of many small parts, in threads: one failure that concerns all of it ends all of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from moorage.data.objects.errors import Reason, StoreProblem
from moorage.data.stopping import breaking
from moorage.errors import Problem

Task = Callable[[], None]
_FATAL: tuple[Reason, ...] = ("no-bucket", "denied", "unreachable")
_PATIENCE = 3.0
"""Seconds for threads to come to an end when the user has interrupted."""


class Stopped(Exception):
    """Others failed, or the work was called off."""


class Pool:
    """Runs tasks. `problem` notes what concerns one of them only."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self.problems: list[Problem] = []

    def run(self, tasks: Iterable[Task], broken: Callable[[], None] = lambda: None) -> None:
        """Returns when all are done. Raises what ended them: StoreProblem of the whole store,
        OSError of a full disk, Stopped. `broken` is called where nobody waits for tasks that go
        on, so that they end."""
        waiting = iter(tasks)
        threads = [
            threading.Thread(target=self._work, args=(waiting,), name="transfer", daemon=True)
            for _ in range(self._threads)
        ]

        def stop() -> None:
            self._stop.set()
            broken()

        with breaking(stop):
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    thread.join()
            except BaseException:
                stop()
                deadline = time.monotonic() + _PATIENCE
                for thread in threads:
                    thread.join(max(0.0, deadline - time.monotonic()))
                if any(thread.is_alive() for thread in threads):
                    broken()  # what had only been begun the first time
                raise
        if self._failure is not None:
            raise self._failure
        if self._stop.is_set():
            raise Stopped("the transfer was called off")

    def check(self) -> None:
        """Stopped, where going on makes no sense."""
        if self._stop.is_set():
            raise Stopped

    def problem(self, place: str, reason: str, fix: str = "") -> None:
        """One of them failed."""
        with self._lock:
            self.problems.append(Problem(reason, fix, file=place))

    def _work(self, waiting: Iterator[Task]) -> None:
        try:
            while not self._stop.is_set():
                with self._turn:
                    task = next(waiting, None)
                if task is None:
                    return
                self._one(task)
        except Stopped:
            pass
        except BaseException as error:
            self._fail(error)

    def _one(self, task: Task) -> None:
        try:
            task()
        except StoreProblem as error:
            if error.reason in _FATAL:
                raise
            self.problem(error.place, error.said, error.fix)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or error
        self._stop.set()
