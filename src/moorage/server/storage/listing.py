"""Buckets with a name as users see them, and beside what the stores themselves say."""

from __future__ import annotations

import asyncio
from functools import partial

from msgspec.structs import replace

from moorage.core import reactor
from moorage.core.storage import LiveStorage
from moorage.data.objects.bucket import open_bucket
from moorage.data.objects.errors import StoreProblem
from moorage.data.objects.leftovers import leftovers
from moorage.errors import MoorageError
from moorage.protocol.api import RunRef
from moorage.protocol.stores import EMBEDDED, StoragePage, StorageView, Unfinished
from moorage.server.storage import buckets
from moorage.server.storage.look import PATIENCE, look
from moorage.server.storage.storages import LOOK_WITHIN, Storages
from moorage.specs.stores.record import Access, Address

COUNT_WITHIN = 20.0
"""Seconds in which the objects of a bucket have to be counted."""
LIST_WITHIN = 12.0


def view(storages: Storages, storage: LiveStorage) -> StorageView:
    """As it is recorded."""
    cluster = storages.engine.cluster
    users = sorted(cluster.bucket_users.get(storage.place, set()))
    return StorageView(
        name=storage.name,
        store=storage.store,
        bucket=storage.bucket,
        uri=uri_of(storages, storage.store, storage.bucket),
        state=storage.state,
        made=storage.made,
        persistent=storage.persistent,
        message=storage.message,
        made_by=storage.made_by,
        user=storage.user,
        created_at=storage.created_at,
        last_used=storage.last_used,
        used_by=[RunRef(run, cluster.runs[run].name) for run in users],
        unflushed=sorted(storage.unflushed),
        objects=storage.objects,
        bytes=storage.bytes,
        looked_at=storage.looked_at,
    )


def uri_of(storages: Storages, store: str, bucket: str) -> str:
    """The address to write for it."""
    if store in storages.engine.cluster.stores:
        return f"{store}://{bucket}"
    try:
        return storages.stores.kind_of(store).write(Address(bucket))
    except (ValueError, MoorageError):
        return f"{store}://{bucket}"


async def checked(storages: Storages) -> StoragePage:
    """All, after a look at every store that is declared or has one; what is there and has no name
    here is `foreign`."""
    cluster = storages.engine.cluster
    names = {one.store for one in cluster.storages.values()} | set(cluster.stores)
    found = await asyncio.gather(*(_of_store(storages, name) for name in sorted(names)))
    views = [one for views, _ in found for one in views]
    problems = [problem for _, problem in found if problem]
    return StoragePage(sorted(views, key=lambda one: (not one.created_at, one.name)), problems)


async def looked_at(storages: Storages, storage: LiveStorage) -> StorageView:
    """One, with what its store tells of uploads that were never finished, if it answers soon."""
    try:
        access = await storages.stores.access(storage.store)
    except MoorageError:
        return view(storages, storage)
    found = await _unfinished(storages, access, storage)
    return replace(view(storages, storage), unfinished=found)


async def _unfinished(
    storages: Storages, access: Access, storage: LiveStorage
) -> Unfinished | None:
    if storage.state != "ready":
        return None
    try:
        call = partial(_left, access, storage.bucket)
        return await storages.ask(access, storage.bucket, LOOK_WITHIN, call)
    except StoreProblem:
        return None


async def _of_store(storages: Storages, store: str) -> tuple[list[StorageView], str]:
    known = [one for one in storages.engine.cluster.storages.values() if one.store == store]
    try:
        access = await storages.stores.access(store)
        there = await _born(storages, access, known)
    except MoorageError as error:
        return [view(storages, one) for one in known], f"store {store}: {error}"
    foreign = [one for one in known if _is_other(one, there)]
    mine = [one for one in known if one not in foreign]
    left, _ = await asyncio.gather(
        asyncio.gather(*(_unfinished(storages, access, one) for one in mine)),
        asyncio.gather(*(_count(storages, access, one, there) for one in mine)),
    )
    views = [
        replace(view(storages, one), unfinished=found)
        for one, found in zip(mine, left, strict=True)
    ]
    told = "somebody else made it anew"
    views += [
        replace(
            view(storages, one),
            state="foreign",
            message=told,
            made=False,
            objects=None,
            bytes=None,
        )
        for one in foreign
    ]
    if store in storages.engine.cluster.stores or store == EMBEDDED:
        recorded = {one.bucket for one in known}
        views += [
            StorageView(name, store, name, uri_of(storages, store, name), "foreign")
            for name in sorted(set(there) - recorded)
        ]
    return views, ""


async def _born(storages: Storages, access: Access, known: list[LiveStorage]) -> dict[str, str]:
    """Buckets that are there, and when each was made; where they may not be listed, those of
    `known` that are there."""
    try:
        listed = await storages.ask(access, "", LIST_WITHIN, partial(buckets.listed, access))
        return {one.name: one.born for one in listed}
    except StoreProblem as error:
        if error.reason == "unreachable" or not known:
            raise
    looks = await asyncio.gather(*(storages.look(access, one.bucket) for one in known))
    return {one.bucket: "" for one, seen in zip(known, looks, strict=True) if seen.there}


def _is_other(storage: LiveStorage, there: dict[str, str]) -> bool:
    born = there.get(storage.bucket, "")
    return bool(storage.made and storage.born and born and born != storage.born)


async def _count(
    storages: Storages, access: Access, storage: LiveStorage, there: dict[str, str]
) -> None:
    objects = size = None
    is_there = storage.bucket in there
    if is_there:
        try:
            count = partial(_counted, access, storage.bucket)
            objects, size = await storages.ask(access, storage.bucket, COUNT_WITHIN, count)
        except StoreProblem:
            pass  # it has too many objects, or may not be read: what was counted last stays
    seen = partial(
        reactor.on_storage_seen,
        storages.engine.cluster,
        storage,
        there=is_there,
        now=storages.engine.clock(),
        objects=objects,
        size=size,
    )
    if storages.find(storage.name) is storage:
        await storages.perform(seen)


def _left(access: Access, bucket: str) -> Unfinished | None:
    return leftovers(open_bucket(access, bucket, patience=PATIENCE).uploads)


def _counted(access: Access, bucket: str) -> tuple[int, int]:
    """One request tells of a small bucket; rclone counts the others in parallel."""
    found = look(access, bucket)
    if not found.more:
        return found.objects, found.bytes
    counted = buckets.size(access, bucket, COUNT_WITHIN)
    return counted.count, counted.bytes
