"""The agent's hold on the keeper: spawn, wait, stop, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from moorage.agent.keeping import Cause, ExitRecord, Keeper, SpawnRequest, TooNew, read_exit
from moorage.errors import Unavailable

log = logging.getLogger("moorage.agent")

_RETRIES = 3  # at once, with another keeper each
_PAUSE = 1.0  # seconds after the last of them
_FAREWELL = 0.8  # seconds that an idle keeper has to end; one that takes longer ends later


class Processes:
    """Processes by key, over as many keepers as it takes. `home` is `$MOORAGE_HOME/agent`."""

    def __init__(self, home: Path) -> None:
        self._keeper = Keeper(home, self._exited, self._broken)
        self._attempts = home / "attempts"
        self._waiting: dict[str, asyncio.Future[ExitRecord]] = {}
        self._recovery: asyncio.Task[None] | None = None
        self._until = 0.0

    async def connect(self) -> dict[str, int]:
        """Find or start the keeper; what runs, by key. Unavailable, after several tries: one that
        is killed while it starts says nothing about the next."""
        for _ in range(_RETRIES):
            try:
                return await self._connect()
            except TooNew:
                raise
            except Unavailable as error:
                log.warning("%s; starting another one", error)
        return await self._connect()

    async def _connect(self) -> dict[str, int]:
        await self._keeper.connect()
        if self._until:
            self._keeper.renew(self._until)
        running = await self._keeper.running()
        for key in running:
            self._expect(key)  # so that its end is also noticed if this keeper dies at once
        return running

    async def spawn(self, request: SpawnRequest) -> None:
        """Start a process; `wait` then gives its end. SpawnError. When the keeper dies on the
        way, nobody can know how far it came: the attempt is buried, and `wait` says `lost`."""
        await self._recovered()
        self._expect(request.key)
        try:
            await self._keeper.spawn(request)
        except Unavailable:
            self._broken()
        except BaseException:
            del self._waiting[request.key]
            raise

    def renew(self, until: float) -> None:
        """The node's lease ends then; each keeper is told."""
        self._until = until
        self._keeper.renew(until)

    def unfence(self, keys: Collection[str]) -> None:
        """Let these live on whatever becomes of the lease."""
        self._keeper.unfence(keys)

    async def wait(self, key: str) -> ExitRecord:
        """The exit record, once there is one."""
        try:
            return await self._expect(key)
        finally:
            self._waiting.pop(key, None)

    async def stop(self, key: str, grace: float | None, cause: Cause) -> None:
        """End a process; `wait` gives the result."""
        while key in self._waiting:
            try:
                await self._keeper.stop(key, grace, cause)
                return
            except Unavailable:
                self._broken()
                await self._recovered()

    async def enter(self, key: str, directory: Path, name: str) -> None:
        """See `Keeper.enter`. SpawnError; Unavailable where the keeper goes away meanwhile."""
        await self._recovered()
        await self._keeper.enter(key, directory, name)

    async def bury(self, key: str) -> ExitRecord:
        """Make sure that nothing of an attempt lives which no keeper knows; how it ended."""
        while True:
            try:
                return await self._buried(key)
            except Unavailable:
                self._broken()
                await self._recovered()

    def forget(self, key: str) -> None:
        """Let the keeper drop an ended key; one that cannot be told will see for itself."""
        self._waiting.pop(key, None)
        self._keeper.forget(key)

    async def close(self) -> None:
        """Leave the keeper and its processes to themselves; a keeper without any is ended."""
        if self._recovery is not None:
            self._recovery.cancel()
            with suppress(asyncio.CancelledError):
                await self._recovery
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await self._keeper.dismiss()
        await self._keeper.close()

    def _expect(self, key: str) -> asyncio.Future[ExitRecord]:
        if key not in self._waiting:
            self._waiting[key] = asyncio.get_running_loop().create_future()
        return self._waiting[key]

    def _exited(self, key: str, record: ExitRecord) -> None:
        # Whoever wants to know may not yet have asked: the agent has just been started.
        waiting = self._expect(key)
        if not waiting.done():
            waiting.set_result(record)

    def _broken(self) -> None:
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.create_task(self._recover())

    async def _recovered(self) -> None:
        if self._recovery is not None:
            await asyncio.shield(self._recovery)

    async def _recover(self) -> None:
        """Connect again, start a new keeper if need be, settle what ended or died meanwhile."""
        log.warning("the connection to the keeper broke; connecting again")
        while True:
            try:
                await self._catch_up(await self.connect())
                return
            except Unavailable as error:
                log.error("no keeper: %s", error)
                await asyncio.sleep(_PAUSE)

    async def _catch_up(self, running: dict[str, int]) -> None:
        for key in [key for key in self._waiting if key not in running]:
            self._exited(key, await self._buried(key))

    async def _buried(self, key: str) -> ExitRecord:
        directory = self._attempts / key
        record = read_exit(directory) or (await self._keeper.ended()).get(key)
        if record is None:
            await self._keeper.bury(key, directory)
            record = read_exit(directory)
        now = time.time()
        return record or ExitRecord(None, None, None, "lost", now, now)
