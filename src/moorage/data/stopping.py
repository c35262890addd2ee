"""End blocking work from outside: whoever prepares data in a thread cannot be interrupted, but the
connection it reads from can be shut, and the program it waits for killed.

A `Stopper` is set as `current` where the work begins; threads that `asyncio.to_thread` starts from
there see it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess


class Stopper:
    """The wish that some work ends. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._breakers: list[Callable[[], None]] = []

    def stop(self) -> None:
        """Break off what blocks now, and what would block later. May be called twice."""
        with self._lock:
            self._stopped = True
            breakers = list(self._breakers)
        for breaker in breakers:
            breaker()

    @contextmanager
    def breaking(self, breaker: Callable[[], None]) -> Iterator[None]:
        """Work that `breaker` ends; it must be harmless when the work has just ended."""
        with self._lock:
            self._breakers.append(breaker)
            stopped = self._stopped
        if stopped:
            breaker()
        try:
            yield
        finally:
            with self._lock:
                self._breakers.remove(breaker)


current: ContextVar[Stopper | None] = ContextVar("current", default=None)


@contextmanager
def breaking(breaker: Callable[[], None]) -> Iterator[None]:
    """Like `Stopper.breaking`, with the current one; without one, nothing breaks."""
    stopper = current.get()
    if stopper is None:
        yield
        return
    with stopper.breaking(breaker):
        yield


def run_program(
    arguments: Sequence[str],
    *,
    input: bytes | None = None,
    timeout: float | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[bytes]:
    """`subprocess.run`, for programs that a `Stopper` may end, with all that they started.

    By SIGTERM: git then removes its lock files, which would be in the way of the next one."""
    import signal
    import subprocess  # most who can be stopped start no program

    if input is not None:
        options["stdin"] = subprocess.PIPE
    with subprocess.Popen(arguments, start_new_session=True, **options) as process:

        def end() -> None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)

        try:
            with breaking(end):
                stdout, stderr = process.communicate(input, timeout)
        except BaseException:
            end()
            raise
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)
