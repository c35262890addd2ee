"""The rows of stores and buckets: one function a query of the store."""

from __future__ import annotations

from moorage.core.effects import Write
from moorage.core.rows import text
from moorage.core.storage import LiveStorage, LiveStore


def upsert_store(store: LiveStore) -> Write:
    params = {
        "name": store.name,
        "kind": store.kind,
        "endpoint": store.endpoint,
        "region": store.region,
        "account": store.account,
        "path_style": int(store.path_style),
        "anonymous": int(store.anonymous),
        "role": store.role,
        "secrets": store.secrets,
        "user": store.user,
        "created_at": store.created_at,
    }
    return Write("upsert_store", params)


def delete_store(name: str) -> Write:
    return Write("delete_store", {"name": name})


def upsert_storage(storage: LiveStorage) -> Write:
    params = {
        "name": storage.name,
        "store": storage.store,
        "bucket": storage.bucket,
        "made": int(storage.made),
        "persistent": int(storage.persistent),
        "state": storage.state,
        "message": storage.message,
        "born": storage.born,
        "made_by": storage.made_by,
        "user": storage.user,
        "created_at": storage.created_at,
        "last_used": storage.last_used,
        "unflushed": text(sorted(storage.unflushed)),
        "objects": storage.objects,
        "bytes": storage.bytes,
        "looked_at": storage.looked_at,
    }
    return Write("upsert_storage", params)


def delete_storage(name: str) -> Write:
    return Write("delete_storage", {"name": name})
