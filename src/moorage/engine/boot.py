"""From the store to a living engine."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from moorage.core import boot
from moorage.core.cluster import Cluster
from moorage.engine.loop import Engine
from moorage.engine.names import suggestions
from moorage.store.base import Statement, Store
from moorage.store.writer import Writer


class Past(NamedTuple):
    """What the store said of the work that was left."""

    cluster: Cluster
    epoch: int
    """Of the last start; 0 before the first."""


def start(
    store: Store, writer: Writer, version: str, clock: Callable[[], float] = time.time
) -> Engine:
    """An engine that goes on where the last one, however it ended, had got to.

    Every start is a new epoch: agents ignore a server of an older one. Call it on the loop.
    """
    return begin(recall(store), store, writer, version, clock)


def recall(store: Store) -> Past:
    """Read what is live. May take a while, and may be called in a thread."""
    cluster = boot.restore(
        runs=store.read("live_runs"),
        jobs=store.read("live_jobs"),
        attempts=store.read("live_attempts"),
        nodes=store.read("nodes"),
        ids=store.read("max_ids")[0],
        dropped_logs=store.read("dropped_logs"),
    )
    return Past(cluster, last_epoch(store))


def last_epoch(store: Store) -> int:
    """The epoch of the latest start, by whichever server."""
    return sum(int(row["value"]) for row in store.read("meta", {"key": "epoch"}))


def begin(
    past: Past,
    store: Store,
    writer: Writer,
    version: str,
    clock: Callable[[], float] = time.time,
    mark: Callable[[int], Sequence[Statement]] = lambda epoch: (),
) -> Engine:
    """The engine of the next epoch. `mark` gives what else is to be written, in the same
    transaction, where that epoch is noted. Call it on the loop."""
    epoch = past.epoch + 1
    noted = Statement("set_meta", {"key": "epoch", "value": str(epoch)})
    # Queued before anything the engine writes, so durable before any agent is welcomed.
    writer.submit([noted, *mark(epoch)])
    engine = Engine(
        store,
        writer,
        past.cluster,
        epoch=epoch,
        version=version,
        names=suggestions(secrets.randbelow),
        clock=clock,
    )
    engine.start(boot.timers(past.cluster))
    return engine


def idle(store: Store, writer: Writer, version: str) -> Engine:
    """An engine that decides nothing, for a server that only answers questions about the past."""
    return Engine(
        store,
        writer,
        Cluster(),
        epoch=last_epoch(store),
        version=version,
        names=suggestions(secrets.randbelow),
    )
