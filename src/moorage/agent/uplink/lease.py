"""Until when this node may count on the server, which waits for it as long as its lease lasts.

The lease counts from the moment when the agent SENT what the server has answered: the server heard
it later, so it ends its own count later, however long the two messages took. The node uses only a
part of it, so that what it ends has time to die, and clocks may differ in their pace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from moorage.agent.keeper.fence import now
from moorage.protocol.agent import Beat

PART = 2 / 3
"""Of the lease, after which the node ends what is fenced."""
_BEATS = 6
"""Signs of life in a lease."""
_SILENT = 0.5
"""The part of a lease without an answer after which the connection counts as broken."""


class Lease:
    """`renewed` is told the new end (`fence.now` seconds); `over` is called once when it has come,
    at the latest before anything else of the server is heard."""

    def __init__(
        self,
        renewed: Callable[[float], None],
        over: Callable[[], None],
        clock: Callable[[], float] = now,
    ) -> None:
        self._renewed, self._over, self._clock = renewed, over, clock
        self._length = 0.0
        self._until = 0.0
        self._lapsed = True
        self._contact = 0.0
        self._number = 0
        self._sent: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def interval(self) -> float:
        """Seconds between two signs of life."""
        return self._length / _BEATS

    @property
    def silent(self) -> bool:
        """Has the server answered nothing for too long?"""
        return self._clock() - self._contact > self._length * _SILENT

    def greet(self) -> None:
        """`Hello` is about to be sent."""
        self._sent = {0: self._clock()}

    def welcome(self, length: float) -> None:
        """The server has answered it, and waits for this many seconds from now on."""
        self._length = length
        self.answered(0)

    def beat(self) -> Beat:
        """To be sent at once."""
        self._number += 1
        self._sent[self._number] = self._clock()
        return Beat(self._number)

    def answered(self, number: int) -> None:
        """The server has heard this one."""
        sent = self._sent.get(number)
        if sent is None:
            return
        self._sent = {other: at for other, at in self._sent.items() if other > number}
        self._contact = sent
        self.valid()  # what has lapsed is over, also where it begins anew
        self._renew(sent + self._length * PART)

    def valid(self) -> bool:
        """Does it last?"""
        if self._clock() < self._until:
            return True
        if not self._lapsed:
            self._lapsed = True
            self._over()
        return False

    def close(self) -> None:
        """Watch it no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _renew(self, until: float) -> None:
        if until <= self._clock():
            return
        self._until, self._lapsed = until, False
        self._renewed(until)
        self.close()
        self._watch()

    def _watch(self) -> None:
        left = max(0.001, self._until - self._clock())
        self._timer = asyncio.get_running_loop().call_later(left, self._look)

    def _look(self) -> None:
        if self.valid():
            self._watch()
