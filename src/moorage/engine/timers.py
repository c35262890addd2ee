"""Wall-clock alarms on an asyncio loop: one heap, one pending callback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush

from moorage.core.effects import Timer, TimerKind

LONGEST_SLEEP = 60.0
"""Seconds. Alarms are wall-clock times, the loop counts monotonic ones: a clock that is set, or a
laptop that slept, must not delay an alarm by more than this."""


class Timers:
    """Calls `fire` once for each armed timer when its time has come."""

    def __init__(self, clock: Callable[[], float], fire: Callable[[Timer], None]) -> None:
        self._clock = clock
        self._fire = fire
        self._heap: list[tuple[float, TimerKind, int]] = []
        self._due: dict[Timer, float] = {}
        self._pending: asyncio.TimerHandle | None = None

    def arm(self, timer: Timer, at: float) -> None:
        """Fire at `at` (Unix seconds); replaces an earlier time of the same timer."""
        self._due[timer] = at
        heappush(self._heap, (at, timer.kind, timer.id))
        if self._heap[0][0] == at:
            self._sleep()

    def close(self) -> None:
        """Forget all."""
        self._heap.clear()
        self._due.clear()
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _sleep(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        if self._heap:
            loop = asyncio.get_running_loop()
            delay = min(max(self._heap[0][0] - self._clock(), 0.0), LONGEST_SLEEP)
            self._pending = loop.call_later(delay, self._ring)

    def _ring(self) -> None:
        self._pending = None
        now = self._clock()
        ready = []
        while self._heap and self._heap[0][0] <= now:
            at, kind, number = heappop(self._heap)
            timer = Timer(kind, number)
            if self._due.get(timer) == at:
                del self._due[timer]
                ready.append(timer)
        for timer in ready:
            self._fire(timer)
        self._sleep()
