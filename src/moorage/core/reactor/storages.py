"""Stores are declared; buckets are made, used by runs, and deleted.

What takes time is done elsewhere, between two decisions: `making` and `deleting` are durable
before the first request leaves, so that a server that starts anew goes on.
"""

from __future__ import annotations

from moorage.core import storagerows
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Emit, Tidy
from moorage.core.job import Final, Job
from moorage.core.run import Run
from moorage.core.storage import LiveStorage, LiveStore, buckets_of
from moorage.errors import Conflict, NotFound, Problem, those_known
from moorage.ids import RunId
from moorage.protocol.agent import Held

UNUSED_FOR = 86_400.0
"""Seconds in which the first run may come that uses a bucket which is not to stay."""
_LOST = frozenset({"lost", "node-lost"})
"""Ends of attempts of which nobody knows whether all is in the bucket."""
_SHOWN = 3


def on_add_store(cluster: Cluster, store: LiveStore) -> list[Effect]:
    """Declare it, or declare it anew."""
    kind = "store.changed" if store.name in cluster.stores else "store.added"
    cluster.stores[store.name] = store
    told = Emit(kind, data={"store": store.name, "kind": store.kind, "user": store.user})
    return [storagerows.upsert_store(store), told, Tidy(again=True)]


def on_delete_store(cluster: Cluster, name: str) -> list[Effect]:
    """Forget how to reach it. Conflict while something relies on that."""
    if name not in cluster.stores:
        known = those_known(name, sorted(cluster.stores), "store ls")
        raise NotFound(f"there is no declared store {name}; {known}")
    runs = {run for place, users in cluster.bucket_users.items() if place[0] == name
            for run in users}  # fmt: skip
    if runs:
        raise Conflict(Problem(f"{_runs(cluster, runs)} uses store {name}", "wait for it"))
    buckets = sorted(one.name for one in cluster.storages.values() if one.store == name)
    if buckets:
        listed = ", ".join(buckets[:_SHOWN])
        more = f" and {len(buckets) - _SHOWN} more" if len(buckets) > _SHOWN else ""
        fix = "delete them first: moorage storage delete NAME"
        raise Conflict(Problem(f"buckets with a name are in it: {listed}{more}", fix))
    del cluster.stores[name]
    return [storagerows.delete_store(name), Emit("store.deleted", data={"store": name})]


def on_record_storage(cluster: Cluster, storage: LiveStorage) -> list[Effect]:
    """A bucket that is about to be made, or one of others that gets a name here."""
    cluster.storages[storage.name] = storage
    kind = "storage.making" if storage.made else "storage.adopted"
    return [storagerows.upsert_storage(storage), _told(kind, storage)]


def on_storage_made(cluster: Cluster, storage: LiveStorage, born: str, now: float) -> list[Effect]:
    """It is there."""
    again = storage.state == "missing"
    storage.state, storage.message, storage.born = "ready", "", born
    storage.created_at = storage.last_used = now
    return [
        storagerows.upsert_storage(storage),
        _told("storage.recreated" if again else "storage.created", storage),
    ]


def on_storage_seen(
    cluster: Cluster,
    storage: LiveStorage,
    *,
    there: bool,
    now: float,
    objects: int | None = None,
    size: int | None = None,
) -> list[Effect]:
    """Somebody looked at it."""
    before = storage.state
    if storage.state in ("ready", "missing"):
        storage.state = "ready" if there else "missing"
        storage.message = "" if there else "it was deleted, and not by moorage"
    if objects is not None or not there:
        storage.objects, storage.bytes, storage.looked_at = objects, size, now
    effects: list[Effect] = [storagerows.upsert_storage(storage)]
    if storage.state != before:
        effects.append(_told(f"storage.{storage.state}", storage))
    return effects


def on_delete_storage(cluster: Cluster, storage: LiveStorage, now: float) -> list[Effect]:
    """It shall go. Conflict while a live run, or a submit, uses it."""
    users = cluster.bucket_users.get(storage.place, set())
    if users:
        fix = "wait for it, or stop it first"
        raise Conflict(Problem(f"{_runs(cluster, users)} uses storage {storage.name}", fix))
    if storage.held_until > now:
        told = f"a run that uses storage {storage.name} is being submitted"
        raise Conflict(Problem(told, "try again in a minute"))
    if storage.state == "deleting":
        return [Tidy(again=True)]
    storage.state, storage.message = "deleting", ""
    return [
        storagerows.upsert_storage(storage),
        _told("storage.deleting", storage),
        Tidy(again=True),
    ]


def on_storage_gone(
    cluster: Cluster, storage: LiveStorage, *, forgotten: str = ""
) -> list[Effect]:
    """The bucket is deleted, or left to others for the reason in `forgotten`."""
    if cluster.storages.get(storage.name) is storage:
        del cluster.storages[storage.name]
    kind = "storage.forgotten" if forgotten else "storage.deleted"
    return [storagerows.delete_storage(storage.name), _told(kind, storage, forgotten)]


def on_storage_trouble(cluster: Cluster, storage: LiveStorage, message: str) -> list[Effect]:
    """Making or deleting it does not work; it is tried again."""
    if storage.message == message:
        return []
    storage.message = message
    return [storagerows.upsert_storage(storage), _told("storage.trouble", storage, message)]


def on_flushed(cluster: Cluster, key: str) -> list[Effect]:
    """What an attempt had left on its node is in its buckets, or is given up."""
    effects: list[Effect] = []
    for storage in cluster.storages.values():
        if key in storage.unflushed:
            storage.unflushed.discard(key)
            effects.append(storagerows.upsert_storage(storage))
            effects.append(_told("storage.flushed", storage, data={"attempt": key}))
    return [*effects, Tidy()] if effects else []


def is_doomed(cluster: Cluster, storage: LiveStorage, now: float) -> bool:
    """Shall the bucket be deleted now?"""
    if storage.state == "deleting":
        return True
    held = storage.held_until > now or storage.unflushed
    idle = not held and storage.place not in cluster.bucket_users
    used = storage.made_by is not None or now - storage.last_used > UNUSED_FOR
    return idle and used and storage.made and not storage.persistent


def in_use(cluster: Cluster, run: Run, now: float) -> list[Effect]:
    """A run begins to use its buckets, or has ended. One that it wants to stay, stays."""
    effects: list[Effect] = []
    lasting = {bucket.bucket for bucket in buckets_of(run.task.mounts) if bucket.persistent}
    for storage in _storages_of(cluster, run):
        storage.persistent = storage.persistent or storage.name in lasting
        storage.last_used, storage.held_until = now, 0.0
        if storage.made_by is None:
            storage.made_by = run.id
        effects.append(storagerows.upsert_storage(storage))
    return effects


def let_go(cluster: Cluster, run: Run, now: float) -> list[Effect]:
    """A run has ended: its buckets may have to go."""
    effects = in_use(cluster, run, now)
    return [*effects, Tidy()] if effects else []


def left_over(cluster: Cluster, run: Run, job: Job, held: Held) -> list[Effect]:
    """Remember an attempt that may have left something on its node: its buckets stay. Where a
    lost one is followed by another, that has written it again."""
    kind = None if held.outcome is None else held.outcome.kind
    if kind != "not-flushed" and not (kind in _LOST and isinstance(job.state, Final)):
        return []
    effects: list[Effect] = []
    for storage in _storages_of(cluster, run):
        if held.key not in storage.unflushed:
            storage.unflushed.add(held.key)
            effects.append(storagerows.upsert_storage(storage))
    return effects


def _storages_of(cluster: Cluster, run: Run) -> list[LiveStorage]:
    named = {bucket.bucket: bucket.store for bucket in buckets_of(run.task.mounts)}
    found = [cluster.storages.get(name) for name in sorted(named)]
    return [one for one in found if one is not None and named[one.name] == one.store]


def _runs(cluster: Cluster, runs: set[RunId]) -> str:
    first = min(runs)
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"run {cluster.runs[first].name} ({first}){more}"


def _told(
    kind: str, storage: LiveStorage, message: str = "", data: dict[str, str] | None = None
) -> Emit:
    told = {"storage": storage.name, "store": storage.store, **(data or {})}
    if message:
        told["message"] = message
    return Emit(kind, storage.made_by, data=told)
