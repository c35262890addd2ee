"""Says of a store that does not answer, and for how long it is waited for; until then nobody could
tell waiting from working."""

from __future__ import annotations

import threading
from collections.abc import Callable

AFTER = 2.0
"""Seconds without a first answer."""
LONGEST = 60.0
"""Seconds after which a store that has taken a request and sends nothing is given up, and asked
again where there is time."""
Tell = Callable[[str], None]


class Silence:
    """Of one store, until its first answer or failure: afterwards whoever moves objects shows how
    far that is. Thread-safe; tells on a thread of its own."""

    def __init__(self, tell: Tell | None = None, shown: str = "", patience: float = 0.0) -> None:
        """None: nobody is to be told."""
        self._tell = tell
        most = max(patience, LONGEST)
        self._said = (
            f"{shown} does not answer; it is tried for {patience:.0f}s, "
            f"or {most:.0f}s where it takes connections"
        )
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._over = tell is None

    def begin(self) -> None:
        """Something is asked."""
        if self._over:
            return
        with self._lock:
            if self._timer is None and not self._over:
                self._timer = threading.Timer(AFTER, self._speak)
                self._timer.daemon = True
                self._timer.start()

    def end(self) -> None:
        """It has answered, or will not."""
        if self._over:
            return
        with self._lock:
            self._over = True
            if self._timer is not None:
                self._timer.cancel()

    def _speak(self) -> None:
        with self._lock:
            tell, over = self._tell, self._over
        if tell is not None and not over:
            tell(self._said)
