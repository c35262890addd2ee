"""`file_mounts:`: files to upload, and buckets, as SkyPilot writes them, with keys of our own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from msgspec import structs

from moorage.specs import buckets
from moorage.specs.fields.bucketcache import CONFIG, Config, read_config
from moorage.specs.fields.bucketsource import (
    Source,
    no_variables,
    read_source,
    read_target,
    reject_address,
)
from moorage.specs.fields.field import Field, require_table
from moorage.specs.fields.mounts import Written
from moorage.specs.mounts import Bucket, Files
from moorage.specs.nodes import List, Map, Place
from moorage.specs.schemas import DURATION, FLAG, NAME, Schema, mapping, one_or_many
from moorage.specs.stores.addresses import has_secret
from moorage.specs.stores.registry import is_store_name, kind
from moorage.specs.values import Rejected, Value, cut, suggestion
from moorage.units import parse_duration

MODES: Mapping[str, str] = {
    "MOUNT": "mount",
    "MOUNT_CACHED": "cached",
    "COPY": "copy",
    "CACHED": "cached",
}
PRESETS: Mapping[str, str] = {
    "MODEL_CHECKPOINT_RO": "model-checkpoint-ro",
    "MODEL_CHECKPOINT_RW": "model-checkpoint-rw",
    "DATASET_RO": "dataset-ro",
    "DATASET_RW": "dataset-rw",
}
DURABLE: Mapping[str, str] = {"BACKGROUND": "background", "FSYNC": "fsync"}
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


def _problem(value: Value, fault: buckets.Fault) -> Any:
    """A fault at the key that it is about, if that was written."""
    where = value
    for key in fault.key.split("."):
        node = where.node
        if not isinstance(node, Map) or key not in node.entries:
            break
        where = structs.replace(where, node=node.entries[key], field=f"{where.field}.{key}")
    return where.problem(fault.message, fault.fix)


def _bucket(value: Value, target: str) -> Bucket:
    given = require_table(_without_internal(value), BUCKET)
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


def _without_internal(value: Value) -> Value:
    """The mapping without keys that only SkyPilot itself writes, which are reported."""
    node = value.node
    assert isinstance(node, Map)
    inner = [key for key in node.entries if key.startswith("_")]
    for key in inner:
        fix = _INTERNAL.get(key, "remove it")
        problem = value.problem(f"'{cut(key)}' is internal to SkyPilot", fix, node.keys[key])
        value.context.report(problem)
    if inner:
        raise Rejected
    return value


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


def _reject(value: Value, key: str, message: str, fix: str) -> None:
    raise Rejected(_problem(value, buckets.Fault(key, message, fix)))


def _name(value: Value) -> str:
    text = value.text()
    if "://" in text:
        if has_secret(text):
            reject_address(value, text)
        value.reject("a name is not an address", f"write source: {cut(text)}")
    no_variables(value, text)
    return text


def _store(value: Value) -> str:
    word = value.text()
    found = kind(word)
    if found is None and not is_store_name(word):
        value.reject(*buckets.store_fault(word))
    return found.name if found is not None else word


def _path(value: Value) -> str:
    text = value.text(later=True)
    no_variables(value, text)
    if text != text.strip("/"):
        value.reject("the path begins or ends with a slash", f"write {cut(text.strip('/'))}")
    return text


def _word(known: Mapping[str, str], shown: str, value: Value) -> str:
    """One of a few words, in upper or lower case."""
    text = value.text()
    found = known.get(text.upper().replace("-", "_"))
    if found is None:
        near = suggestion(text, [word.lower() for word in known])
        value.reject(f"'{value.shown}' is not one of {shown}{near}")
    return found


def _words(known: Mapping[str, str]) -> Schema:
    both = [case for word in known for case in (word, word.lower())]
    return {"type": "string", "enum": both}


def _own(
    name: str,
    about: str,
    read: Any,
    schema: Schema,
    form: str = "",
    default: str = "",
) -> Field:
    return Field(name, about, read, schema, "moorage", form=form, default=default)


BUCKET = (
    Field(
        "name",
        "Name of a bucket that is made where it is missing, and listed as storage.",
        _name,
        NAME,
        "skypilot",
        form="as the store's rules say",
    ),
    Field(
        "source",
        "Address of a bucket, of a prefix in one, or of an object; or what the client uploads "
        "into the bucket before the run is submitted.",
        read_source,
        one_or_many(NAME),
        "skypilot",
        form="`s3://bucket/path`, local path, list of local paths",
    ),
    Field(
        "store",
        "Where the bucket is.",
        _store,
        NAME,
        "skypilot",
        form="a kind of store, or a name of `moorage store ls`",
        default="the server's default store",
    ),
    Field(
        "persistent",
        "`false`: what moorage made is deleted when the run has ended.",
        lambda v: v.flag(),
        FLAG,
        "skypilot",
        default="`true`",
    ),
    Field(
        "mode",
        "How files get into the job and back.",
        partial(_word, MODES, "MOUNT, MOUNT_CACHED, COPY"),
        _words(MODES),
        "skypilot",
        form="`MOUNT`, `MOUNT_CACHED`, `COPY`",
        default="`MOUNT`",
    ),
    Field(
        "type",
        "Settings of `MOUNT_CACHED` for a purpose.",
        partial(_word, PRESETS, ", ".join(PRESETS)),
        _words(PRESETS),
        "skypilot",
        form=", ".join(f"`{word}`" for word in PRESETS),
    ),
    Field(
        "config",
        "Single settings of a mode.",
        read_config,
        mapping({row.name: row.schema for row in CONFIG}),
        "skypilot",
        form="mapping",
    ),
    _own(
        "path",
        "A prefix or an object below a bucket with a `name`.",
        _path,
        NAME,
        "`a/b`",
    ),
    _own(
        "read_only",
        "The job cannot write here.",
        lambda v: v.flag(),
        FLAG,
        default="`false`; `true` for types that end with `RO`",
    ),
    _own(
        "sync_back",
        "Of `COPY`: upload what the job changed when it has ended.",
        lambda v: v.flag(),
        FLAG,
        default="`false`",
    ),
    _own(
        "durable",
        "Of `MOUNT_CACHED`: `fsync` returns after the upload.",
        partial(_word, DURABLE, "background, fsync"),
        _words(DURABLE),
        "`background`, `fsync`",
        "`background`",
    ),
    _own(
        "flush_timeout",
        "How long the upload after the job may stand still before the job counts as failed.",
        lambda v: v.parse(parse_duration),
        DURATION,
        "duration",
        "the node's setting",
    ),
)
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
