"""The keys of a bucket in `file_mounts`: SkyPilot's, and our own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from moorage.specs import buckets
from moorage.specs.fields.bucketcache import CONFIG, read_config
from moorage.specs.fields.bucketsource import no_variables, read_source, reject_address
from moorage.specs.fields.field import Field, Reader
from moorage.specs.schemas import DURATION, FLAG, NAME, Schema, mapping, one_or_many
from moorage.specs.stores.addresses import has_secret
from moorage.specs.stores.registry import is_store_name, kind
from moorage.specs.values import Value, cut, suggestion
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
        near = suggestion(text, shown.split(", "))
        value.reject(f"'{value.shown}' is not one of {shown}{near}")
    return found


def _words(known: Mapping[str, str]) -> Schema:
    both = [case for word in known for case in (word, word.lower())]
    return {"type": "string", "enum": both}


def _own(
    name: str,
    about: str,
    read: Reader,
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
        "When `fsync` returns in `MOUNT_CACHED`: with the file on the node's disk (`background`), "
        "or in the bucket (`fsync`).",
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
