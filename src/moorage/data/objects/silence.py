"""Says of a store that does not answer, for how long it is waited for, and when it is back; nobody
could tell waiting from working."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moorage.data.objects.traffic import Traffic

AFTER = 2.0
"""Seconds without any answer, while something is asked, that are worth a line."""
LATE = 10.0
"""The same for what takes long by itself, and for a store that was silent before."""
LONGEST = 60.0
"""Seconds after which a store that has taken a request and sends nothing is given up, and asked
again where there is time."""
LONGEST_SENDING = 900.0
"""The same for a request with content: the engine counts all of it, so that slow lines need a
generous limit."""
_OFTEN = 3
_TICK = 0.5
Tell = Callable[[str, bool], None]
"""What is to be said, nothing where it has failed, and whether the store is away. Called on a
thread of its own."""


class Silence:
    """Of one store. Thread-safe. Watches while something is asked of it; what comes in or goes out
    in large pieces is life too, as a slow line may need long for one request."""

    def __init__(self, tell: Tell | None = None, shown: str = "", patience: float = 0.0) -> None:
        """`tell` may be replaced; None: nobody is to be told."""
        self.tell = tell
        self._shown, self._patience = shown, patience
        self._changed = threading.Condition()
        self._asked = self._sending = self._slow = self._parts = 0
        self._answers = 0
        self._since = 0.0
        self._watched = self._away = False
        self._told = 0

    @contextmanager
    def asking(
        self, *, sending: bool = False, slow: bool = False, parts: bool = False
    ) -> Iterator[None]:
        """Something is asked: with content where `sending`; `slow`: the store has to work for it;
        `parts`: the engine takes them back where it fails. A failure is no answer."""
        if self.tell is None:
            yield
            return
        self._begin(sending, slow, parts)
        try:
            yield
            self.answered()
        finally:
            with self._changed:
                self._asked -= 1
                self._sending -= sending
                self._slow -= slow
                self._parts -= parts
                self._wake()

    def answered(self) -> None:
        """A part of an answer has come."""
        with self._changed:
            self._answers += 1
            self._since = time.monotonic()
            self._wake()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """A part of an answer has come, and the store has nothing to do meanwhile."""
        if self.tell is None:
            yield
            return
        self.answered()
        with self._changed:
            self._asked -= 1
        try:
            yield
        finally:
            self._begin()

    def _begin(self, sending: bool = False, slow: bool = False, parts: bool = False) -> None:
        with self._changed:
            if not self._asked:
                self._since = time.monotonic()
            self._asked += 1
            self._sending += sending
            self._slow += slow
            self._parts += parts
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch, name="silence", daemon=True).start()

    def _wake(self) -> None:
        """Who waits for a silence has nothing to learn from an answer, but of the last request."""
        if self._away or not self._asked:
            self._changed.notify_all()

    def _watch(self) -> None:
        traffic = Traffic()
        while True:
            with self._changed:
                left = self._since + self._worth() - time.monotonic()
                if left > 0 and self._asked:
                    self._changed.wait(left)
                if not self._asked:
                    self._watched = False
                    return
                quiet = time.monotonic() - self._since >= self._worth()
            if traffic.moved() and quiet:
                self._alive()
            elif quiet:
                self._silent(traffic)

    def _worth(self) -> float:
        alone = self._slow and self._slow == self._asked
        return LATE if alone or self._told >= _OFTEN else AFTER

    def _alive(self) -> None:
        with self._changed:
            self._since = time.monotonic()

    def _silent(self, traffic: Traffic) -> None:
        """Tell, and tell again when that is over."""
        with self._changed:
            answers, since = self._answers, self._since
            self._told += 1
            self._away = True
            tried = self._patience * (2 if self._parts else 1)  # to send, then to take back
            most = max(tried, LONGEST_SENDING if self._sending else LONGEST)
        limit = f"{most:.0f}s" if most < 120 else f"{most / 60:.0f}m"
        self._say(
            f"{self._shown} does not answer; it is tried for {tried:.0f}s, "
            f"or {limit} where it takes connections",
            True,
        )
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._over(answers), _TICK)
                over, back = self._over(answers), self._answers != answers
            back = back or traffic.moved()
            if over or back:
                break
        self._away = False
        self._alive()
        took = time.monotonic() - since
        self._say(f"{self._shown} answers again, after {took:.0f}s" if back else "", False)

    def _over(self, answers: int) -> bool:
        return self._answers != answers or not self._asked

    def _say(self, text: str, away: bool) -> None:
        tell = self.tell
        if tell is not None:
            tell(text, away)
