"""From the store to a living engine."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from moorage.core import boot
from moorage.engine.loop import Engine
from moorage.engine.names import suggestions
from moorage.store.base import Statement, Store
from moorage.store.writer import Writer


def start(
    store: Store, writer: Writer, version: str, clock: Callable[[], float] = time.time
) -> Engine:
    """An engine that goes on where the last one, however it ended, had got to.

    Every start is a new epoch: agents ignore a server of an older one. Call it on the loop.
    """
    cluster = boot.restore(
        runs=store.read("live_runs"),
        jobs=store.read("live_jobs"),
        attempts=store.read("live_attempts"),
        nodes=store.read("nodes"),
        ids=store.read("max_ids")[0],
        dropped_logs=store.read("dropped_logs"),
    )
    epoch = 1 + sum(int(row["value"]) for row in store.read("meta", {"key": "epoch"}))
    # Queued before anything the engine writes, so durable before any agent is welcomed.
    writer.submit([Statement("set_meta", {"key": "epoch", "value": str(epoch)})])
    engine = Engine(
        store,
        writer,
        cluster,
        epoch=epoch,
        version=version,
        names=suggestions(secrets.randbelow),
        clock=clock,
    )
    engine.start(boot.timers(cluster))
    return engine
