"""One session of a server on a shared database: first as a standby, then perhaps as the leader."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from moorage.engine import boot
from moorage.engine.loop import Engine
from moorage.protocol.api import Role
from moorage.server.admission import Admission, admitting
from moorage.server.app import build
from moorage.server.chores import chores
from moorage.server.door import Door
from moorage.server.forward import Forwarder
from moorage.server.objectstore import SHARED, beside
from moorage.server.peers import Peers
from moorage.server.services import Services
from moorage.server.site import Reach, Site
from moorage.server.standby import standby
from moorage.server.storage.setup import equip
from moorage.store.base import StoreBroken
from moorage.store.blobs import Blobs
from moorage.store.databasepacks import DatabasePacks
from moorage.store.leader import Identity, Server
from moorage.store.postgres_store import PostgresStore
from moorage.store.writer import Writer

ANNOUNCE_EVERY = 4.0
LOOK_EVERY = 1.0
LOOK_AGAIN = 0.2
"""Seconds until the next look at who leads; the second while a request waits for that."""
LOOK_PAUSE = 0.05
"""Seconds between two looks at least, however many requests find that nobody leads."""
BEAT_EVERY = 1.0
WITHDRAW_WITHIN = 5.0
"""Seconds that an orderly end waits for a database that does not answer; whoever does not withdraw
is forgotten by the others a little later."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Term:
    """Made by `begin`; `serve` once, then `end`. All that it has in memory ends with it."""

    def __init__(
        self,
        site: Site,
        store: PostgresStore,
        identity: Identity,
        reach: Reach,
        peers: Peers,
        door: Door,
        database: str,
    ) -> None:
        self._site = site
        self._store = store
        self._reach = reach
        self._peers = peers
        self._door = door
        self._database = database
        self._writer = Writer(store)
        self._leadership = store.leadership(identity)
        self._admission = Admission(store)
        self._blobs = Blobs(
            site.directory,
            store,
            self._writer,
            packs=DatabasePacks(store, self._writer),
            upload_limit=site.settings.upload_limit,
        )
        self._engine: Engine | None = None
        # Threads of its own: those of the loop may all be busy with uploads.
        self._threads = ThreadPoolExecutor(3, "leadership")
        self._told: list[str] | None = None

    @classmethod
    async def begin(
        cls,
        site: Site,
        store: PostgresStore,
        identity: Identity,
        *,
        reach: Reach,
        peers: Peers,
        door: Door,
        forward: Forwarder,
        database: str,
    ) -> Term:
        """Register, and answer as a standby. StoreBroken."""
        term = cls(site, store, identity, reach, peers, door, database)
        try:
            await term._in_thread(term._register)
            await term._look()
            idle = boot.idle(store, term._writer, site.version, peers.epoch)
            door.application = standby(term._services(idle, "standby"), peers, forward)
        except BaseException:
            term._writer.close()
            term._threads.shutdown()
            raise
        return term

    async def serve(self) -> None:
        """Stand by, then lead; comes back only by StoreBroken."""
        watching = asyncio.ensure_future(self._watch())
        leading = asyncio.ensure_future(self._lead())
        try:
            await asyncio.wait((watching, leading), return_when=asyncio.FIRST_COMPLETED)
            for task in (leading, watching):
                if task.done():
                    task.result()
        finally:
            self._leadership.interrupt()
            for task in (watching, leading):
                task.cancel()
            await asyncio.gather(watching, leading, return_exceptions=True)

    async def end(self, *, withdraw: bool = False) -> None:
        """Commit what is queued if that is still possible, and give the lock back."""
        if self._engine is not None:
            self._engine.close()
        self._leadership.interrupt()
        await asyncio.to_thread(self._writer.close)
        if withdraw:
            with suppress(StoreBroken, TimeoutError):
                async with asyncio.timeout(WITHDRAW_WITHIN):
                    await self._in_thread(self._leadership.withdraw)
        await asyncio.to_thread(self._store.close)
        self._threads.shutdown(wait=False)

    def _register(self) -> None:
        self._leadership.announce()
        batch = admitting(self._store, self._site.holders, self._site.id, adopt=False)
        if batch:
            self._store.write_aside(batch)

    async def _lead(self) -> None:
        await self._in_thread(self._leadership.acquire)
        epoch = await self._in_thread(lambda: boot.last_epoch(self._store)) + 1
        begun = [*boot.noted(epoch), self._leadership.begin(epoch)]
        await asyncio.wrap_future(self._writer.submit(begun))
        beating = asyncio.ensure_future(self._beat())
        try:
            cluster = await self._in_thread(lambda: boot.recall(self._store))
            earlier = await self._in_thread(lambda: boot.earlier_lease(self._store))
            engine = boot.begin(
                cluster,
                epoch,
                self._store,
                self._writer,
                self._site.version,
                lease=self._site.settings.node_lease,
                earlier=earlier,
                shared=True,
            )
            self._engine = engine
            await self._take_office(engine, beating)
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _take_office(self, engine: Engine, beating: asyncio.Future[None]) -> None:
        services = self._services(engine, "leader")
        self._door.application = build(services)
        self._peers.leading = True
        _log.info("leading, epoch %d", engine.epoch)
        await self._look()
        failing = asyncio.ensure_future(engine.stopped.wait())
        ends: list[asyncio.Future[Any]] = [failing, beating]
        try:
            async with chores(services, self._site, self._reach):
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            failing.cancel()
        if engine.failure is not None:
            raise StoreBroken(f"leading no longer: {engine.failure}")
        beating.result()

    async def _beat(self) -> None:
        """Signs of life, until one cannot be committed."""
        pause = min(BEAT_EVERY, self._site.settings.leader_lease / 5)
        while True:
            await asyncio.wrap_future(self._writer.submit([self._leadership.beat()]))
            await asyncio.sleep(pause)

    async def _watch(self) -> None:
        """Look at the other servers, tell them of this one, and end a leader that is frozen."""
        lease = self._site.settings.leader_lease
        loop = asyncio.get_running_loop()
        announced = loop.time()
        while True:
            pause = LOOK_AGAIN if self._peers.doubted.is_set() else min(LOOK_EVERY, lease / 4)
            self._peers.doubted.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._peers.doubted.wait()
                    await asyncio.sleep(LOOK_PAUSE)
            await self._look()
            if not self._peers.leading:
                await self._in_thread(lambda: self._leadership.evict_if_stale(lease))
            if loop.time() - announced > ANNOUNCE_EVERY:
                announced = loop.time()
                await self._in_thread(self._leadership.announce)

    async def _look(self) -> None:
        servers, epoch = await self._in_thread(self._seen)
        self._peers.learn(servers, epoch)
        addresses = self._peers.addresses
        if addresses != self._told:
            self._told = addresses
            others = [url for url in addresses if url != self._peers.own]
            try:
                self._site.tell(self._reach, others)
            except OSError as error:  # a full disk at home is no reason to lead no longer
                _log.error("cannot tell clients of the other servers: %s", error)
        if self._engine is not None and self._engine.servers != addresses:
            self._engine.name_servers(addresses)

    def _seen(self) -> tuple[list[Server], int]:
        return self._leadership.servers(), boot.last_epoch(self._store)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _services(self, engine: Engine, role: Role) -> Services:
        object_store = beside(self._site.directory, engine, SHARED)
        storage = equip(engine, object_store, self._site.settings, self._site.directory)
        return Services(
            engine=engine,
            blobs=self._blobs,
            settings=self._site.settings,
            admission=self._admission,
            object_store=object_store,
            storages=storage.storages,
            mounts=storage.mounts,
            directory=self._site.directory,
            user=self._site.user,
            version=self._site.version,
            started_at=self._site.started_at,
            loopback=True,
            database=self._database,
            role=role,
            peers=self._peers,
        )
