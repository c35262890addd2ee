"""Ends a process whose event loop hangs: a leader that answers nobody must not keep others from
leading.

Time is counted in the watchdog's own wake-ups, not by a clock: while the whole process is frozen
it counts nothing, and a process that goes on after that has its say before it is judged.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from types import TracebackType

PERIOD = 1.0
"""Seconds between two looks."""
EXIT_HUNG = 70

_log = logging.getLogger(__name__)


class Watchdog:
    """Watches the loop that it is entered on, for the length of a block."""

    def __init__(self, patience: float) -> None:
        """`patience`: seconds for which the loop may hang."""
        self._limit = max(2, round(patience / PERIOD))
        self._missed = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Watchdog:
        self._tick(asyncio.get_running_loop())
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._missed = 0
        self._timer = loop.call_later(PERIOD / 2, self._tick, loop)

    def _watch(self) -> None:
        while not self._over.wait(PERIOD):
            self._missed += 1
            if self._missed > self._limit:
                _log.critical("the server hangs: it ends, so that another one can lead")
                os._exit(EXIT_HUNG)
