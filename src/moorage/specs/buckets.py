"""What a bucket in a job must be like, whoever wrote it: a file, or a program that posts a spec.

The bucket's path and target may still be templates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from moorage.errors import Problem
from moorage.specs.mounts import Bucket, CacheOptions, Mount
from moorage.specs.stores.addresses import BadAddress, clean, has_secret
from moorage.specs.stores.record import Address
from moorage.specs.stores.registry import is_store_name, kind, locate, meant

MODE_WORDS = {"mount": "MOUNT", "cached": "MOUNT_CACHED", "copy": "COPY"}
"""The modes as files name them."""
NAME_ONLY = ("file", "hf")
"""Kinds in which no bucket can be made."""


class Fault(NamedTuple):
    """What is wrong with one key of a bucket."""

    key: str
    """Of the mapping in a file; empty: the bucket as a whole."""
    message: str
    fix: str = ""


def uri(bucket: Bucket) -> str:
    """The address of what is mounted, as its kind writes it, or `STORE://bucket/path`."""
    found = kind(bucket.store)
    place = Address(bucket.bucket, bucket.path, bucket.region, bucket.account)
    if found is not None:
        return found.write(place)
    return f"{bucket.store}://{bucket.bucket}" + (f"/{bucket.path}" if bucket.path else "")


def writes(bucket: Bucket) -> bool:
    """Whether what the job writes shall reach the bucket."""
    return bucket.sync_back if bucket.mode == "copy" else not bucket.read_only


def faults(bucket: Bucket) -> Iterator[Fault]:
    """Everything that is wrong with it."""
    found = list(_store(bucket))
    yield from found
    if not any(fault.key == "store" for fault in found):
        yield from _name(bucket)
    yield from _place(bucket)
    yield from _mode(bucket)
    yield from _options(bucket)
    yield from _sources(bucket)


def bucket_problems(mounts: Sequence[Mount]) -> Iterator[Problem]:
    """What is wrong with the buckets of a spec that no loader has seen."""
    numbers = [number for number, mount in enumerate(mounts) if isinstance(mount, Bucket)]
    own = [mount for mount in mounts if isinstance(mount, Bucket)]
    each = [(number, fault) for number, bucket in enumerate(own) for fault in faults(bucket)]
    for number, fault in (*each, *conflicts(own)):
        key = fault.key.partition(".")[0]
        field = f"mounts[{numbers[number]}].{key}".rstrip(".")
        yield Problem(fault.message, fault.fix, field)


def _store(bucket: Bucket) -> Iterator[Fault]:
    found = kind(bucket.store)
    if not bucket.store:
        if not bucket.managed:
            yield Fault("store", "nothing says in which store the bucket is")
        return
    if found is None and not is_store_name(bucket.store):
        yield Fault("store", *store_fault(bucket.store))
    if found is None:
        return
    if found.name in NAME_ONLY and bucket.managed:
        fix = {
            "file": "declare one: moorage store add NAME --type file --endpoint /directory",
            "hf": "name what is there: source: hf://datasets/NAMESPACE/NAME",
        }[found.name]
        yield Fault("store", f"moorage makes no buckets in {found.title}", fix)
    elif not found.mountable and bucket.mode != "copy":
        yield Fault("mode", f"{found.title} can only be copied", "write mode: COPY")
    elif found.read_only and bucket.sync_back:
        yield Fault("sync_back", f"{found.title} can only be read", "remove it")


def store_fault(word: str) -> tuple[str, str]:
    """Why a word names no store, and what to write."""
    if word.lower() == "volume":
        return (
            "a volume is not a bucket",
            "write `volumes: [/directory/on/node:/path]`, or name a bucket here",
        )
    near = meant(word)
    reason = f"there is no store '{word[:60]}'" + (f"; did you mean '{near}'?" if near else "")
    return reason, "write s3, gcs, azure, ..., or the name of a store of `moorage store ls`"


def _name(bucket: Bucket) -> Iterator[Fault]:
    key = "name" if bucket.managed else "source"
    if not bucket.bucket:
        yield Fault(key, "the bucket's name is missing")
        return
    why = name_fault(bucket.store, bucket.bucket)
    if why:
        yield Fault(key, f"'{bucket.bucket[:80]}' cannot be the name of a bucket: {why}")


def name_fault(store: str, name: str) -> str:
    """Why a bucket of that store cannot be called so; empty where it can, or the server knows."""
    found = kind(store)
    if found is not None:
        return found.check_name(name)
    if store:  # a declared one, whose kind the server knows
        plain = re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII) and ".." not in name
        return "" if plain and len(name) <= 256 else "use letters, digits, . _ and -"
    reasons = [one.check_name(name) for one in map(kind, ("s3", "gcs", "azure")) if one]
    return "" if "" in reasons else reasons[0]


def _place(bucket: Bucket) -> Iterator[Fault]:
    try:
        clean(bucket.path)
    except BadAddress as error:
        yield Fault("path", error.reason, error.fix)
        return
    if bucket.path != bucket.path.strip("/"):
        yield Fault("path", "the path begins or ends with a slash", "write it without")
    if has_secret(f"x://{bucket.bucket}/{bucket.path}"):
        yield Fault("source", "the address contains credentials", "remove them")


def _mode(bucket: Bucket) -> Iterator[Fault]:
    if bucket.mode != "cached":
        for key, given in (
            ("type", bucket.preset is not None),
            ("config.mount_cached", bucket.cache != CacheOptions()),
        ):
            if given:
                message = f"{key} is for MOUNT_CACHED, and this is {MODE_WORDS[bucket.mode]}"
                yield Fault(key, message, "write mode: MOUNT_CACHED, or remove it")
    if bucket.mode != "copy" and bucket.sync_back:
        message = f"sync_back is for COPY, and this is {MODE_WORDS[bucket.mode]}"
        yield Fault("sync_back", message, "remove it: what a mount writes is uploaded anyway")
    something = bool(bucket.sources or bucket.path or bucket.sync_back)
    if bucket.mode == "copy" and bucket.managed and not something:
        fix = "add source, or sync_back: true to collect what the job writes"
        yield Fault("mode", "COPY without a source has nothing to copy", fix)


def _options(bucket: Bucket) -> Iterator[Fault]:
    if bucket.read_only and bucket.sync_back:
        yield Fault("sync_back", "what is read-only has no changes to upload", "remove one")
    if bucket.read_only and (bucket.preset or "").endswith("-rw"):
        fix = "remove read_only, or write the type that ends with RO"
        yield Fault("read_only", "the type is one for writing", fix)
    if not bucket.read_only and (bucket.preset or "").endswith("-ro"):
        fix = "remove read_only, or write the type that ends with RW"
        yield Fault("read_only", "the type is one for reading", fix)
    if bucket.durable == "fsync" and bucket.mode != "cached":
        message = f"durable: fsync is for MOUNT_CACHED, and this is {MODE_WORDS[bucket.mode]}"
        fix = {
            "mount": "remove it, since close waits for the upload; or write mode: MOUNT_CACHED",
            "copy": "write mode: MOUNT_CACHED, or remove it",
        }[bucket.mode]
        yield Fault("durable", message, fix)
    elif bucket.durable == "fsync" and bucket.read_only:
        yield Fault("durable", "what is read-only is never uploaded", "remove one")
    if bucket.flush_timeout is not None and not writes(bucket):
        fix = "remove it" if bucket.read_only else "add sync_back: true, or remove it"
        yield Fault("flush_timeout", "nothing is uploaded from here", fix)
    if bucket.flush_timeout is not None and not 0 < bucket.flush_timeout <= 2**53:
        yield Fault("flush_timeout", "the duration must be above zero")
    lowest = {"transfers": 1}
    for field in CacheOptions.__struct_fields__:
        number = getattr(bucket.cache, field)
        if number is not None and not lowest.get(field, 0) <= number <= 2**53:
            yield Fault("config.mount_cached", f"{field} is out of range")


def _sources(bucket: Bucket) -> Iterator[Fault]:
    if any("\0" in source for source in bucket.sources):
        yield Fault("source", "the text contains a NUL character")
    if bucket.sources and not bucket.managed:
        yield Fault("source", "local files can only go into a bucket with a name", "add name")
    if not bucket.listed:
        return
    seen: dict[str, str] = {}
    for source in bucket.sources:
        name = PurePosixPath(source).name
        if name in ("", "..", "~"):
            yield Fault("source", f"'{source}' has no name of its own", "write it with its name")
        elif name in seen:
            message = f"'{seen[name]}' and '{source}' both become {name} in the bucket"
            yield Fault("source", message, "rename one, or mount them apart")
        seen[name] = source


def conflicts(buckets: Sequence[Bucket]) -> Iterator[tuple[int, Fault]]:
    """Mounts of one storage that say different things of it: number of the later, and why."""
    first: dict[str, int] = {}
    for number, bucket in enumerate(buckets):
        if not bucket.managed:
            continue
        other = buckets[first.setdefault(bucket.bucket, number)]
        if other.store != bucket.store:
            message = f"'{bucket.bucket}' is in store {other.store or 'default'} elsewhere"
            yield number, Fault("store", message, "write one store for one name")
        elif other.persistent != bucket.persistent:
            message = f"'{bucket.bucket}' is {_kept(other)} where {other.target} has it"
            fix = f"write persistent: {str(other.persistent).lower()} here too, or another name"
            yield number, Fault("persistent", message, fix)


def _kept(bucket: Bucket) -> str:
    return "kept" if bucket.persistent else "deleted"


def of_uri(text: str) -> Bucket:
    """A bucket, a prefix or an object by its address, without a target yet. BadAddress."""
    store, address = locate(text)
    return Bucket("", store, address.bucket, address.path, address.region, address.account)
