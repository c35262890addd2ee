"""From the store to a living engine."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from moorage.core import boot, reactor
from moorage.core.cluster import Cluster
from moorage.core.effects import Write
from moorage.engine.leases import LEASE
from moorage.engine.loop import Engine
from moorage.engine.names import suggestions
from moorage.store.base import Statement, Store
from moorage.store.writer import Writer

_SECRET = {"key": "secret"}


def start(
    store: Store,
    writer: Writer,
    version: str,
    clock: Callable[[], float] = time.time,
    lease: float = LEASE,
) -> Engine:
    """An engine that goes on where the last one, however it ended, had got to. Call it on the
    loop."""
    epoch = last_epoch(store) + 1
    writer.submit(noted(epoch))
    earlier = earlier_lease(store)
    return begin(recall(store), epoch, store, writer, version, clock, lease, earlier)


def last_epoch(store: Store) -> int:
    """The epoch of the latest start, by whichever server; 0 before the first."""
    return _number(store, "epoch")


def earlier_lease(store: Store) -> float:
    """The longest lease, in seconds, that a node may still go by."""
    return _number(store, "node_lease") / 1000


def _note_lease(engine: Engine, earlier: float) -> None:
    """A longer one counts from now on. A shorter one does so when the longer one would be over:
    until then nodes that nobody has heard of may go by that."""
    lease = engine.leases.lease
    value = {"key": "node_lease", "value": str(round(lease * 1000))}
    if lease > earlier:
        engine.writer.submit([Statement("set_meta", value)])
    elif lease < earlier:
        engine.leases.outlived = lambda: engine.perform(lambda: [Write("set_meta", value)])


def noted(epoch: int) -> list[Statement]:
    """Every start is a new epoch, and agents ignore a server of an older one. Written before
    anything the engine writes, it is durable before any agent is welcomed."""
    return [Statement("set_meta", {"key": "epoch", "value": str(epoch)})]


def recall(store: Store) -> Cluster:
    """What the store says of the work that is left. May take a while, and be called in a
    thread."""
    cluster = boot.restore(
        runs=store.read("live_runs"),
        jobs=store.read("live_jobs"),
        attempts=store.read("live_attempts"),
        nodes=store.read("nodes"),
        ids=store.read("max_ids")[0],
        dropped_logs=store.read("dropped_logs"),
        earlier_attempts=store.read("earlier_attempts"),
        fleets=store.read("fleets"),
        hosts=store.read("hosts"),
        node_places=store.read("node_places"),
        stores=store.read("stores"),
        storages=store.read("storages"),
    )
    cluster.secret = b"".join(bytes.fromhex(row["value"]) for row in store.read("meta", _SECRET))
    if jobs := _number(store, "restored_jobs"):
        cluster.restored_jobs = jobs
        cluster.restored_attempt = _number(store, "restored_attempt")
    return cluster


def _number(store: Store, key: str) -> int:
    return sum(int(row["value"]) for row in store.read("meta", {"key": key}))


def begin(
    cluster: Cluster,
    epoch: int,
    store: Store,
    writer: Writer,
    version: str,
    clock: Callable[[], float] = time.time,
    lease: float = LEASE,
    earlier: float = 0.0,
    *,
    shared: bool = False,
) -> Engine:
    """An engine for what was recalled. `earlier` is as `earlier_lease` gives it; `shared`: there
    may be other servers. Call it on the loop."""
    if not cluster.secret:  # the first start of this version
        cluster.secret = secrets.token_bytes(32)
        writer.submit([Statement("set_meta", {**_SECRET, "value": cluster.secret.hex()})])
    engine = Engine(
        store,
        writer,
        cluster,
        epoch=epoch,
        version=version,
        names=suggestions(secrets.randbelow),
        clock=clock,
        lease=lease,
    )
    engine.shared = shared
    _note_lease(engine, earlier)
    mended = reactor.on_boot(cluster, clock())
    engine.start([*mended, *boot.timers(cluster)], earlier)
    return engine


def idle(store: Store, writer: Writer, version: str, epoch: int) -> Engine:
    """An engine that decides nothing, for a server that only answers questions about the past."""
    return Engine(
        store,
        writer,
        Cluster(),
        epoch=epoch,
        version=version,
        names=suggestions(secrets.randbelow),
    )
