"""Buckets that have a name: made, looked at, deleted. What it takes of the store is done in
threads, between two decisions of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from moorage.core import reactor
from moorage.core.effects import Effect
from moorage.core.storage import LiveStorage
from moorage.data.objects.errors import StoreProblem
from moorage.engine.loop import Engine
from moorage.errors import MoorageError, Unavailable
from moorage.server.storage import buckets
from moorage.server.storage.access import Stores
from moorage.server.storage.flushing import Flushes
from moorage.server.storage.look import Look, look
from moorage.server.storage.threads import in_thread
from moorage.specs.stores.record import Access

T = TypeVar("T")
LOOK_WITHIN = 3.0
"""Seconds in which a store has to tell of a bucket."""
MAKE_WITHIN = 15.0
HELD_FOR = 20.0
"""Seconds for which a submit may rely on a bucket before its run is there."""
_AT_ONCE = 32
_ANEW = "somebody else made it anew since: it is left as it is"


class Storages:
    """Called on the engine's loop."""

    def __init__(self, engine: Engine, stores: Stores) -> None:
        self.engine = engine
        self.stores = stores
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._making: dict[str, asyncio.Lock] = {}
        self.flushes = Flushes(engine)
        """Of what attempts left on their nodes."""

    async def look(self, access: Access, bucket: str, path: str = "", shown: str = "") -> Look:
        """StoreProblem, soon, where it cannot be said. `shown`: its address for people."""
        call = partial(look, access, bucket, path, shown)
        return await self.ask(access, bucket, LOOK_WITHIN, call, shown)

    async def ask(
        self, access: Access, bucket: str, within: float, call: Callable[[], T], shown: str = ""
    ) -> T:
        """What a call in a thread returns; StoreProblem where that takes too long, at `shown`. The
        thread is left to its own end."""
        try:
            async with self._slots, asyncio.timeout(within):
                return await in_thread(call)
        except TimeoutError:
            place = shown or buckets.shown_at(access, bucket)
            said = f"the store does not answer (within {within:g} s)"
            raise StoreProblem("unreachable", place, said) from None

    async def perform(self, decide: Callable[[], Sequence[Effect]]) -> None:
        """Durable on return."""
        await self.engine.perform(decide)

    def find(self, name: str) -> LiveStorage | None:
        """The bucket of that name."""
        return self.engine.cluster.storages.get(name)

    def hold(self, storages: Sequence[LiveStorage]) -> None:
        """A run that uses them is about to be accepted: they may not go before it is there."""
        for storage in storages:
            storage.held_until = self.engine.clock() + HELD_FOR

    async def make(
        self, name: str, store: str, user: str, *, persistent: bool, access: Access
    ) -> LiveStorage:
        """The bucket is there on return: made, unless it was. One that is recorded as missing is
        made again. Concurrent calls make it once. StoreProblem, with nothing recorded."""
        lock = self._making.setdefault(name, asyncio.Lock())
        try:
            async with lock:
                return await self._make(name, store, user, persistent, access)
        finally:
            if not lock.locked():
                self._making.pop(name, None)

    async def _make(
        self, name: str, store: str, user: str, persistent: bool, access: Access
    ) -> LiveStorage:
        cluster, now = self.engine.cluster, self.engine.clock()
        storage = cluster.storages.get(name)
        if storage is not None and storage.state == "ready":
            return storage
        is_new = storage is None
        if storage is None:
            storage = LiveStorage(name, store, name, True, persistent, "making", user, now, now)
            await self.perform(partial(reactor.on_record_storage, cluster, storage))
        try:
            call = partial(_made, access, name)
            born = await self.ask(access, name, MAKE_WITHIN, call)
        except StoreProblem as error:
            if is_new and error.reason != "unreachable":  # it is certain that it was not made
                gone = partial(reactor.on_storage_gone, cluster, storage, forgotten=str(error))
                await self.perform(gone)
            raise
        now = self.engine.clock()
        await self.perform(partial(reactor.on_storage_made, cluster, storage, born, now))
        return storage

    async def adopt(self, name: str, store: str, user: str, born: str) -> LiveStorage:
        """Give a bucket of others a name here."""
        cluster, now = self.engine.cluster, self.engine.clock()
        storage = LiveStorage(name, store, name, False, True, "ready", user, now, now, born=born)
        await self.perform(partial(reactor.on_record_storage, cluster, storage))
        return storage

    async def note(self, storage: LiveStorage, found: Look) -> None:
        """What a look told of it."""
        if storage.state not in ("ready", "missing"):
            return
        whole = found.there and not found.more
        known = (storage.state == "ready", storage.objects, storage.bytes)
        if known == (found.there, found.objects, found.bytes) or not (
            whole or known[0] != found.there
        ):
            return
        await self.perform(
            partial(
                reactor.on_storage_seen,
                self.engine.cluster,
                storage,
                there=found.there,
                now=self.engine.clock(),
                objects=found.objects if whole else None,
                size=found.bytes if whole else None,
            )
        )

    async def want_gone(self, storage: LiveStorage) -> None:
        """Durable on return; the deletion itself comes after. Conflict while it is used."""
        cluster, now = self.engine.cluster, self.engine.clock()
        await self.perform(partial(reactor.on_delete_storage, cluster, storage, now))

    async def remove(self, storage: LiveStorage) -> None:
        """Delete the bucket if it is ours, and forget it in any case. May be repeated at any
        point. StoreProblem, MoorageError where it has to be tried again."""
        cluster = self.engine.cluster
        if storage.state != "deleting":
            await self.want_gone(storage)
        why = "moorage did not make it: the bucket and what is in it stay"
        if storage.made:
            access = await self.stores.access(storage.store)
            why = await in_thread(partial(_deleted, access, storage.bucket, storage.born))
        await self.perform(partial(reactor.on_storage_gone, cluster, storage, forgotten=why))

    async def trouble(self, storage: LiveStorage, error: MoorageError) -> None:
        """Why it is still there."""
        tell = partial(reactor.on_storage_trouble, self.engine.cluster, storage, str(error))
        await self.perform(tell)


def _made(access: Access, bucket: str) -> str:
    buckets.make(access, bucket)
    return buckets.born(access, bucket)


def _deleted(access: Access, bucket: str, born: str) -> str:
    """Why it was not; empty where it is gone. The first look tells soon where the store does not
    answer."""
    if not look(access, bucket).there:
        return ""
    if born:
        now = buckets.born(access, bucket)
        if now not in ("", born):
            return _ANEW
    buckets.delete(access, bucket)
    return ""


def plain(error: MoorageError) -> tuple[str, str]:
    """Reason and fix of a problem with a store, for a `Problem`."""
    if isinstance(error, StoreProblem):
        return f"{error.place}: {error.said}", error.fix
    if isinstance(error, Unavailable):
        return str(error), ""
    return str(error), ""
