"""`file_mounts:`: files to upload, and buckets, as SkyPilot writes them, with keys of our own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn

from msgspec import structs

from moorage.errors import Problem
from moorage.specs import buckets
from moorage.specs.fields.bucketcache import Config
from moorage.specs.fields.bucketkeys import BUCKET
from moorage.specs.fields.bucketsource import Source, read_source, read_target
from moorage.specs.fields.field import Field, require_table
from moorage.specs.fields.mounts import Written
from moorage.specs.mounts import Bucket, Files
from moorage.specs.nodes import List, Map, Place
from moorage.specs.schemas import NAME, mapping
from moorage.specs.values import Rejected, Value, cut

_INTERNAL = {"_bucket_sub_path": "write path:", "_force_delete": "use moorage storage delete"}


def read_file_mounts(value: Value) -> list[Written]:
    """Targets and sources: a text, or a mapping for a bucket with options."""
    found: list[Written] = []
    for key, item, place in value.pairs():
        mount = item.context.attempt(partial(_mount, value, key, place), item)
        if mount is not None:
            found.append(Written(mount, item))
    _share_stores(found)
    owned = [item for item in found if isinstance(item.mount, Bucket)]
    own = [item.mount for item in owned if isinstance(item.mount, Bucket)]
    for number, fault in buckets.conflicts(own):
        value.context.report(_problem(owned[number].value, fault))
    return found


def _share_stores(found: list[Written]) -> None:
    """A name without a store is in the store that another mount of the name has."""
    managed = [
        item.mount for item in found if isinstance(item.mount, Bucket) and item.mount.managed
    ]
    stores = {mount.bucket: mount.store for mount in managed if mount.store}
    for number, (mount, value) in enumerate(found):
        if isinstance(mount, Bucket) and mount.managed and not mount.store:
            store = stores.get(mount.bucket, "")
            found[number] = Written(structs.replace(mount, store=store), value)


def _mount(whole: Value, key: str, place: Place, value: Value) -> Files | Bucket:
    target = read_target(whole, key, place, value)
    if isinstance(value.node, Map):
        bucket = _bucket(value, target)
    elif isinstance(value.node, List):
        value.reject("a text or a mapping is needed", "write {name: BUCKET, source: [...]}")
    else:
        source = read_source(value)
        if source.address is None:
            return Files(source.local[0], target)
        bucket = structs.replace(source.address, target=target, mode="copy")
    problems = [_problem(value, fault) for fault in buckets.faults(bucket)]
    if problems:
        raise Rejected(*problems)
    return bucket


def _problem(value: Value, fault: buckets.Fault) -> Problem:
    """A fault at the key that it is about, if that was written."""
    where = value
    for key in fault.key.split("."):
        node = where.node
        if not isinstance(node, Map) or key not in node.entries:
            break
        where = structs.replace(where, node=node.entries[key], field=f"{where.field}.{key}")
    return where.problem(fault.message, fault.fix)


def _bucket(value: Value, target: str) -> Bucket:
    _require_public(value)
    given = require_table(value, BUCKET)
    source: Source = given.get("source", Source())
    config: Config = given.get("config", Config())
    mode = given.get("mode", "mount")
    _agree(value, given, source, config, mode)
    preset = given.get("type")
    read_only = given.get("read_only", config.read_only)
    if read_only is None:
        read_only = (preset or "").endswith("-ro")
    base = source.address or Bucket("", bucket=given["name"], managed=True)
    return structs.replace(
        base,
        target=target,
        store=base.store or given.get("store", ""),
        path=base.path or given.get("path", ""),
        mode=mode,
        read_only=read_only,
        persistent=given.get("persistent", True),
        sources=list(source.local),
        listed=source.listed,
        preset=preset,
        cache=config.cache,
        sync_back=given.get("sync_back", False),
        durable=given.get("durable", "background"),
        flush_timeout=given.get("flush_timeout"),
    )


def _require_public(value: Value) -> None:
    """Reject keys that only SkyPilot itself writes."""
    node = value.node
    assert isinstance(node, Map)
    problems = [
        value.problem(
            f"'{cut(key)}' is internal to SkyPilot",
            _INTERNAL.get(key, "remove it"),
            node.keys[key],
        )
        for key in node.entries
        if key.startswith("_")
    ]
    if problems:
        raise Rejected(*problems)


def _agree(
    value: Value, given: Mapping[str, Any], source: Source, config: Config, mode: str
) -> None:
    """Reject keys that cannot stand beside each other."""
    address = source.address
    if address is None and "name" not in given:
        if source.local:
            message = "local files go into a bucket, and `name` does not say which"
            _reject(value, "source", message, "add name: BUCKET, or write TARGET: PATH to upload")
        value.reject("a bucket needs name or source", "add name: BUCKET or source: s3://BUCKET")
    if address is not None:
        _agree_with_address(value, given, address)
    for part, wanted, written in (
        ("mount", "mount", config.mount),
        ("mount_cached", "cached", config.mount_cached),
    ):
        if written and mode != wanted:
            is_now, should = buckets.MODE_WORDS[mode], buckets.MODE_WORDS[wanted]
            message = f"config.{part} is for {should}, and this is {is_now}"
            _reject(value, f"config.{part}", message, f"write mode: {should}, or remove it")
    flag = given.get("read_only")
    if None not in (flag, config.read_only) and flag != config.read_only:
        _reject(value, "read_only", "config says the opposite", "remove one of them")


def _agree_with_address(value: Value, given: Mapping[str, Any], address: Bucket) -> None:
    if "name" in given:
        message = "the source is the address of a bucket, which has its name already"
        _reject(value, "name", message, "remove name, or make source a local path")
    if "path" in given:
        fix = f"write source: {cut(buckets.uri(address))}/{cut(given['path'])}"
        _reject(value, "path", "the source is an address, which has its path already", fix)
    store = given.get("store", address.store)
    if store != address.store:
        message = f"the source is in {address.store}, and store says {store}"
        fix = "remove store; moorage storage cp copies between stores"
        _reject(value, "store", message, fix)
    if given.get("persistent") is False:
        where = Value(value.node, f"{value.field}.persistent", value.context)
        where.warn("without effect: moorage deletes only buckets that it made", "remove it")


def _reject(value: Value, key: str, message: str, fix: str) -> NoReturn:
    raise Rejected(_problem(value, buckets.Fault(key, message, fix)))


FILE_MOUNTS_FIELD = Field(
    "file_mounts",
    "Files to upload, and buckets to mount or to copy, by where they appear.",
    read_file_mounts,
    {
        "type": "object",
        "additionalProperties": {
            "anyOf": [NAME, mapping({row.name: row.schema for row in BUCKET})]
        },
    },
    "skypilot",
    form="mapping of targets to a local path, an address (copied), or a mapping",
)
