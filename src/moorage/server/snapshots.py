"""How a copy of what a server knows is made, whichever database keeps it."""

from __future__ import annotations

from functools import partial

from moorage.store.backup import Snapshot
from moorage.store.base import Store
from moorage.store.sqlite import SqliteStore


def snapshot_of(store: Store) -> Snapshot:
    """Makes an SQLite database of all rows as of one moment, while servers write."""
    if isinstance(store, SqliteStore):
        return store.file.snapshot
    from moorage.store.postgres_store import PostgresStore  # where there is a driver
    from moorage.store.transfer_postgres import snapshot

    assert isinstance(store, PostgresStore)
    return partial(snapshot, store)
