"""Which nodes have given a sign of life of late: one monotonic clock and one timer for all.

A node that is silent for half its lease is taken for gone, whatever its connection seems to be;
one that is silent for all of it is lost. A server that begins has heard of nobody: it waits for as
long as any server before it may have promised.
"""

from __future__ import annotations

import time
from asyncio import TimerHandle, get_running_loop
from collections.abc import Callable
from dataclasses import dataclass

from moorage.ids import NodeId

LEASE = 30.0
"""Seconds."""
_LOOKS = 12
"""How often each lease is looked at: no node is found later than by that part of it."""
_SILENT = 0.5
"""The part of a lease after which a connection that says nothing counts as broken."""
_SHAKEN = 60.0
"""Seconds that a node is watched for connecting again and again."""
FLAPS = 4
"""Connections in that time that are too many."""


@dataclass(slots=True)
class _Life:
    """What is known of a node: when it was heard of, and for how long it may be silent."""

    heard: float
    allowed: float


class Leases:
    """`quiet` is called for a connected node that is silent, `lost` for one whose lease has
    ended, each with the seconds of silence. Every node is watched from its first word on."""

    def __init__(
        self,
        lease: float,
        quiet: Callable[[NodeId, float], None],
        lost: Callable[[NodeId, float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lease = lease
        self._earlier = lease
        self._quiet, self._lost, self._clock = quiet, lost, clock
        self._lives: dict[NodeId, _Life] = {}
        self._ups: dict[NodeId, list[float]] = {}
        self._up: set[NodeId] = set()
        self._due = 0.0
        self._timer: TimerHandle | None = None
        self._began = 0.0
        self.outlived: Callable[[], object] | None = None
        """Called once when nobody can go by a longer lease of before any more."""

    def begin(self, nodes: list[NodeId], earlier: float) -> None:
        """Wait for these; `earlier` is the longest lease that a server before may have given."""
        self._earlier = max(earlier, self.lease)
        now = self._began = self._clock()
        self._lives = {node: _Life(now, self._earlier) for node in nodes}
        self._arm()

    def close(self) -> None:
        """Watch nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def away(self, node: NodeId) -> float | None:
        """Seconds since it was heard of; None where this server has not."""
        life = self._lives.get(node)
        return None if life is None else self._clock() - life.heard

    def greeted(self, node: NodeId) -> None:
        """It connected. Until it has said that it knows of the present lease, an earlier and
        longer one may be what it goes by."""
        now = self._clock()
        known = self._lives.get(node)
        self._lives[node] = _Life(now, self._earlier if known is None else known.allowed)
        self._up.add(node)
        ups = self._ups.setdefault(node, [])
        ups[:] = [*[at for at in ups if now - at < _SHAKEN][-FLAPS:], now]

    def heard(self, node: NodeId) -> None:
        """A sign of life, of one that was welcomed."""
        life = self._lives[node]
        life.heard, life.allowed = self._clock(), self.lease

    def gone(self, node: NodeId) -> None:
        """Its connection is."""
        self._up.discard(node)

    def flapping(self, node: NodeId) -> bool:
        """Has it connected again and again within the last minute?"""
        since = self._clock() - _SHAKEN
        return sum(at > since for at in self._ups.get(node, ())) > FLAPS

    def _arm(self) -> None:
        pause = self.lease / _LOOKS
        self._due = self._clock() + pause
        self._timer = get_running_loop().call_later(pause, self._look)

    def _look(self) -> None:
        now, pause = self._clock(), self.lease / _LOOKS
        if now - self._due > pause:
            # This process stood still, and has yet to read what nodes said meanwhile.
            for life in self._lives.values():
                life.heard = max(life.heard, now - pause)
        self._arm()
        for node, life in list(self._lives.items()):
            silent = now - life.heard
            if node in self._up and silent > life.allowed * _SILENT:
                self._quiet(node, silent)
            if node not in self._up and silent > life.allowed:
                del self._lives[node]
                self._lost(node, silent)
        if self._earlier > self.lease and now - self._began > self._earlier:
            # All that servers before have promised is over; what this one promised is shorter.
            self._earlier = self.lease
            if self.outlived is not None:
                self.outlived()
