"""The mounts of one attempt while it runs and flushes: have what breaks of them mended, and know
how they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from moorage.agent import stuck
from moorage.agent.flushing import Numbered
from moorage.data.base import Place
from moorage.data.buckets import BucketSource
from moorage.protocol.mounts import MountHealth


class Attending:
    """From the first `begin` until the source releases them. `changed` is called on the event
    loop."""

    def __init__(self, source: BucketSource, place: Place, changed: Callable[[], None]) -> None:
        self._source, self._place, self._changed = source, place, changed
        self._health: dict[str, MountHealth] = {}
        self._begun = False

    def begin(self, mounts: Sequence[Numbered]) -> None:
        """Of a process that lives, or did."""
        if self._begun:
            return
        self._begun = True
        loop, directory = asyncio.get_running_loop(), self._place.directory

        def tell(health: MountHealth) -> None:  # on a thread
            loop.call_soon_threadsafe(self._take, health)

        for number, bucket in mounts:
            self._source.attend(bucket, self._place, number, tell, lambda: stuck.doomed(directory))

    @property
    def health(self) -> list[MountHealth]:
        """Of those of which something was told."""
        return list(self._health.values())

    @property
    def detail(self) -> str:
        """All that was told, in words."""
        return "; ".join(f"{one.target} {one.message}" for one in self.health if one.message)

    @property
    def trouble(self) -> str:
        """What is wrong just now."""
        return "; ".join(f"{one.target} {one.message}" for one in self.health if one.stalled)

    def _take(self, health: MountHealth) -> None:
        self._health[health.target] = health
        self._changed()
