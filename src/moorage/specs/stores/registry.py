"""All kinds of stores. Adding one: a module with its `KIND`, a line here, and its test."""

from __future__ import annotations

import re

from moorage.specs.stores import (
    azure,
    coreweave,
    directory,
    embedded,
    gcs,
    hf,
    ibm,
    nebius,
    oci,
    r2,
    s3,
    vastdata,
)
from moorage.specs.stores.addresses import BadAddress, plain, scheme_of
from moorage.specs.stores.record import Address, StoreKind

KINDS: tuple[StoreKind, ...] = (
    s3.KIND,
    gcs.KIND,
    azure.KIND,
    r2.KIND,
    ibm.KIND,
    oci.KIND,
    nebius.KIND,
    coreweave.KIND,
    vastdata.KIND,
    hf.KIND,
    directory.KIND,
    embedded.KIND,
)
_STORE = r"[a-z][a-z0-9-]{0,40}"


def kind(word: str) -> StoreKind | None:
    """The kind of that name or other name, upper or lower case; None: a declared store's name, if
    it is one."""
    word = word.lower()
    return next((one for one in KINDS if word == one.name or word in one.aliases), None)


def of_uri(text: str) -> StoreKind | None:
    """The kind that an address belongs to; None where it may be a declared store's."""
    scheme = scheme_of(text)
    if scheme == "https" and azure.is_host(text.partition("://")[2].partition("/")[0]):
        return azure.KIND
    return next((one for one in KINDS if scheme in one.schemes), None)


def is_store_name(word: str) -> bool:
    """Whether a declared store may be called so: not as a kind is, nor as its addresses begin."""
    known = any(word in (one.name, *one.aliases, *one.schemes) for one in KINDS)
    return re.fullmatch(_STORE, word) is not None and not known and word not in _OTHERS


def locate(text: str) -> tuple[str, Address]:
    """Store and place of an address: the name of its kind, or of the declared store that is
    written before `://`, which the server knows. BadAddress where it is none."""
    found = of_uri(text)
    if found is not None:
        return found.name, found.read(text)
    name = scheme_of(text)
    if not is_store_name(name):
        raise BadAddress("this is not the address of a store", "write it as in s3://bucket/path")
    return name, plain(text)


_OTHERS = ("http", "https", "ftp", "ftps", "sftp", "ssh", "git", "hdfs", "volume")
"""Words before `://` that mean something else to everybody, and SkyPilot's `store: volume`."""
