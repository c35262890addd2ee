"""`config` of a bucket in `file_mounts`: SkyPilot's names, whose values are rclone's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from moorage.specs.fields.field import Field, require_table
from moorage.specs.mounts import CacheOptions
from moorage.specs.schemas import DURATION, FLAG, Schema, mapping
from moorage.specs.values import Value
from moorage.units import BadValue, parse_duration, parse_size

SIZE: Schema = {"type": ["string", "integer"], "examples": ["64M", "10G"]}
_KIB = 1024
_SIZE_FIX = "write a number with b, k, m, g, t or p, as in 64M"
_LONG = {"M": 30 * 86_400.0, "y": 365 * 86_400.0}


class Config(Struct, frozen=True):
    """What `config` says. `mount` and `mount_cached`: whether these were written."""

    cache: CacheOptions = CacheOptions()
    read_only: bool | None = None
    mount: bool = False
    mount_cached: bool = False


def _size(value: Value) -> int:
    """Bytes. A plain number counts KiB, as rclone reads it."""
    text = value.text().strip()
    if re.fullmatch(r"[0-9]{1,15}", text):
        value.warn(f"a plain number counts KiB here: {text} is {text}K", f"write {text}K")
        return int(text) * _KIB
    try:
        return parse_size(text)
    except BadValue:
        value.reject(f"'{value.shown}' is not a size", _SIZE_FIX)


def _duration(value: Value) -> float:
    """Seconds. Beside our own forms rclone's `500ms`, and its `M` and `y`."""
    text = value.text().strip()
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|M|y)", text)
    if found is None:
        return value.parse(parse_duration)
    if found[2] == "ms":
        return float(found[1]) / 1000
    return float(found[1]) * _LONG[found[2]]


def _number(low: int) -> Callable[[Value], int]:
    return lambda value: int(value.number(low, 1024))


def _nothing_of_volumes(value: Value) -> None:
    value.reject("this belongs to `store: volume`, and a volume is not a bucket", "remove it")


def _no_program(value: Value) -> None:
    value.reject("buckets are mounted by rclone here, not by hf-mount", "remove it")


def _cached(
    name: str, about: str, read: Callable[[Value], Any], schema: Schema, form: str
) -> Field:
    return Field(name, about, read, schema, "skypilot", form=form)


_READ_ONLY = Field(
    "read_only",
    "The same as `read_only` of the mount.",
    lambda v: v.flag(),
    FLAG,
    "skypilot",
    default="`false`",
)
MOUNT = (
    _READ_ONLY,
    Field(
        "hf_mount_args",
        "Options of another program.",
        _no_program,
        {"type": "null"},
        "skypilot",
        "refused",
        "-",
        instead="`mode: COPY` for Hugging Face",
    ),
)
MOUNT_CACHED = (
    _cached(
        "transfers",
        "Files uploaded at the same time.",
        _number(1),
        {"type": "integer", "minimum": 1},
        "1 or more",
    ),
    _cached("buffer_size", "Memory for an open file.", _size, SIZE, "size"),
    _cached("vfs_cache_max_size", "Disk for the cache.", _size, SIZE, "size"),
    _cached(
        "vfs_cache_max_age", "How long unused files are kept.", _duration, DURATION, "duration"
    ),
    _cached("vfs_read_ahead", "Read ahead of the reader.", _size, SIZE, "size"),
    _cached("vfs_read_chunk_size", "Size of one request.", _size, SIZE, "size"),
    _cached(
        "vfs_read_chunk_streams",
        "Requests for one file at the same time.",
        _number(0),
        {"type": "integer", "minimum": 0},
        "0 or more",
    ),
    _cached(
        "vfs_write_back",
        "How long after `close` the upload begins.",
        _duration,
        DURATION,
        "duration",
    ),
    _READ_ONLY,
)
_OPTIONS: Mapping[str, str] = {
    "transfers": "transfers",
    "buffer_size": "buffer_size",
    "vfs_cache_max_size": "cache_size",
    "vfs_cache_max_age": "cache_age",
    "vfs_read_ahead": "read_ahead",
    "vfs_read_chunk_size": "chunk_size",
    "vfs_read_chunk_streams": "chunk_streams",
    "vfs_write_back": "write_back",
}
"""SkyPilot's names and those of `CacheOptions`."""


def read_config(value: Value) -> Config:
    """The whole mapping."""
    given = require_table(value, CONFIG)
    mount: dict[str, Any] = given.get("mount", {})
    cached: dict[str, Any] = given.get("mount_cached", {})
    options = {ours: cached[theirs] for theirs, ours in _OPTIONS.items() if theirs in cached}
    read_only = {**mount, **cached}.get("read_only")
    return Config(CacheOptions(**options), read_only, "mount" in given, "mount_cached" in given)


CONFIG = (
    Field(
        "mount",
        "Options of `MOUNT`.",
        lambda v: require_table(v, MOUNT),
        mapping({row.name: row.schema for row in MOUNT}),
        "skypilot",
        form="mapping",
    ),
    Field(
        "mount_cached",
        "Options of `MOUNT_CACHED`.",
        lambda v: require_table(v, MOUNT_CACHED),
        mapping({row.name: row.schema for row in MOUNT_CACHED}),
        "skypilot",
        form="mapping",
    ),
    *(
        Field(
            name,
            "Of `store: volume`, which this version does not have.",
            _nothing_of_volumes,
            {"type": "null"},
            "skypilot",
            "refused",
            "-",
            instead="`volumes`",
        )
        for name in ("disk_size", "disk_tier", "storage_type", "attach_mode")
    ),
)
