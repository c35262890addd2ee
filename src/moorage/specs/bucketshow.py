"""A bucket as `file_mounts` has it: reads back to the same."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from moorage.interpolate import escape
from moorage.specs.buckets import MODE_WORDS, uri
from moorage.specs.mounts import Bucket, CacheOptions
from moorage.units import duration_text, size_text


def written(bucket: Bucket) -> str | dict[str, Any]:
    """The value beside the bucket's target: its address alone where that says it all."""
    address = uri(structs.replace(bucket, bucket=escape(bucket.bucket)))
    plain = Bucket(
        target=bucket.target,
        store=bucket.store,
        bucket=bucket.bucket,
        path=bucket.path,
        region=bucket.region,
        account=bucket.account,
        mode="copy",
    )
    if bucket == plain:
        return address
    found: dict[str, Any] = _named(bucket) if bucket.managed else {"source": address}
    found["mode"] = MODE_WORDS[bucket.mode]
    if bucket.preset is not None:
        found["type"] = bucket.preset.upper().replace("-", "_")
    if bucket.read_only != (bucket.preset or "").endswith("-ro"):
        found["read_only"] = bucket.read_only
    if not bucket.persistent:
        found["persistent"] = False
    if bucket.sync_back:
        found["sync_back"] = True
    if bucket.durable != "background":
        found["durable"] = bucket.durable
    if bucket.flush_timeout is not None:
        found["flush_timeout"] = duration_text(bucket.flush_timeout)
    if bucket.cache != CacheOptions():
        found["config"] = {"mount_cached": _cache(bucket.cache)}
    return found


def _named(bucket: Bucket) -> dict[str, Any]:
    sources = [escape(source) for source in bucket.sources]
    found = {
        "name": bucket.bucket,
        "source": sources if bucket.listed else "".join(sources),
        "store": bucket.store,
        "path": bucket.path,
    }
    return {key: value for key, value in found.items() if value}


def _cache(cache: CacheOptions) -> dict[str, Any]:
    found = {
        "transfers": cache.transfers,
        "buffer_size": _size(cache.buffer_size),
        "vfs_cache_max_size": _size(cache.cache_size),
        "vfs_cache_max_age": _time(cache.cache_age),
        "vfs_read_ahead": _size(cache.read_ahead),
        "vfs_read_chunk_size": _size(cache.chunk_size),
        "vfs_read_chunk_streams": cache.chunk_streams,
        "vfs_write_back": _time(cache.write_back),
    }
    return {key: value for key, value in found.items() if value is not None}


def _size(size: int | None) -> str | None:
    """As SkyPilot wants sizes: one letter for the unit."""
    if size is None:
        return None
    text = size_text(size)
    return text if text[-2].isdigit() else text[:-1]


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else duration_text(seconds)
