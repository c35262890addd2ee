"""Deletes buckets that shall go: those that somebody deletes, and those that were made for runs
that have ended (`persistent: false`).

Level-triggered: it looks at what there is, so that a server that was killed in the middle goes on
where it was, and every step may be repeated.
"""

from __future__ import annotations

import asyncio
import logging

from moorage.core.reactor.storages import is_doomed
from moorage.core.storage import LiveStorage
from moorage.errors import Conflict, MoorageError
from moorage.server.storage.storages import Storages

LOOK_EVERY = 900.0
"""Seconds after which it looks, though nothing happened: some buckets only live for so long."""
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 300.0
AT_ONCE = 4

_log = logging.getLogger(__name__)


class Tender:
    """Runs on the server that leads, on the loop of its engine."""

    def __init__(self, storages: Storages) -> None:
        self._storages = storages
        self._engine = storages.engine
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Until cancelled."""
        untidy = self._engine.untidy
        try:
            while True:
                if untidy.take():
                    self._hurry()
                now = self._engine.clock()
                for storage in list(self._engine.cluster.storages.values()):
                    if is_doomed(self._engine.cluster, storage, now):
                        self._begin(storage)
                try:
                    async with asyncio.timeout(LOOK_EVERY):
                        await untidy.wait()
                except TimeoutError:
                    pass
        finally:
            for task in self._busy.values():
                task.cancel()
            await asyncio.gather(*self._busy.values(), return_exceptions=True)

    def _hurry(self) -> None:
        """Somebody asks for it: those that rest after an error are tried now."""
        for task in list(self._busy.values()):
            task.cancel()
        self._busy.clear()

    def _begin(self, storage: LiveStorage) -> None:
        if storage.name not in self._busy:
            task = asyncio.ensure_future(self._remove(storage))
            self._busy[storage.name] = task
            task.add_done_callback(lambda ended: self._over(storage.name, ended))

    def _over(self, name: str, ended: asyncio.Task[None]) -> None:
        if self._busy.get(name) is ended:
            del self._busy[name]
        if not ended.cancelled() and (error := ended.exception()) is not None:
            _log.error("the deletion of storage %s failed", name, exc_info=error)

    async def _remove(self, storage: LiveStorage) -> None:
        pause = FIRST_PAUSE
        while self._storages.find(storage.name) is storage:
            try:
                async with self._slots:
                    await self._storages.remove(storage)
                return
            except Conflict:
                return  # somebody uses it again
            except MoorageError as error:
                if self._engine.failure is not None:
                    return
                await self._storages.trouble(storage, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
