"""Counts what many threads have moved, and tells it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from moorage.data.transfer.places import Progress

Tell = Callable[[Progress], None]
"""Called from the threads that work, one at a time; should return at once."""


class Counter:
    """Files and bytes so far."""

    def __init__(self, files_total: int, bytes_total: int, tell: Tell | None = None) -> None:
        self._lock = threading.Lock()
        self._tell = tell
        self._totals = (files_total, bytes_total)
        self.files = 0
        self.bytes = 0

    def add(self, files: int, size: int) -> None:
        """More of them; negative where some came to nothing."""
        with self._lock:
            self.files += files
            self.bytes += size
            if self._tell is not None:
                self._tell(Progress(self.files, self._totals[0], self.bytes, self._totals[1]))
