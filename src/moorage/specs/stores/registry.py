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
from moorage.specs.stores.addresses import BadAddress, plain, rest_of, scheme_of
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
    """Whether a declared store may be called so: not as a kind is, nor as its addresses begin,
    nor as either with a slip of the finger."""
    good = re.fullmatch(_STORE, word) is not None and word not in (*_words(), *_OTHERS)
    return good and not meant(word)


def meant(word: str) -> str:
    """The kind's word that differs from this one by a slip of the finger: `s3` for `s4`; empty
    where none does."""
    word = word.lower()
    known = _words()
    return "" if word in known else next((one for one in known if _slip(word, one)), "")


def _words() -> list[str]:
    """Names of kinds, their other names, and what their addresses begin with."""
    return [
        word for one in KINDS for word in dict.fromkeys((one.name, *one.aliases, *one.schemes))
    ]


def _slip(word: str, known: str) -> bool:
    """Two letters exchanged, one wrong, one too few or doubled. Of two letters every word is
    close to another, so there only digits are mistaken for each other."""
    start = next((n for n, (a, b) in enumerate(zip(word, known, strict=False)) if a != b), None)
    if start is None:
        return len(known) > 3 and len(word) == len(known) - 1
    mine, other = word[start:], known[start:]
    if len(mine) == len(other):
        if mine[1::-1] == other[:2] and mine[2:] == other[2:]:
            return True
        wrong = mine[1:] == other[1:]
        return wrong and (len(known) > 2 or (mine[0] + other[0]).isdigit())
    if len(known) < 4:
        return False
    return mine == other[1:] or (mine[1:] == other and mine[0] == word[start - 1])


def locate(text: str) -> tuple[str, Address]:
    """Store and place of an address: the name of its kind, or of the declared store that is
    written before `://`, which the server knows. BadAddress where it is none."""
    found = of_uri(text)
    if found is not None:
        return found.name, found.read(text)
    rest_of(text)  # what is secret in it is said first
    name = scheme_of(text)
    if not is_store_name(name):
        raise BadAddress("this is not the address of a store", "write it as in s3://bucket/path")
    return name, plain(text)


_OTHERS = ("http", "https", "ftp", "ftps", "sftp", "ssh", "git", "hdfs", "volume")
"""Words before `://` that mean something else to everybody, and SkyPilot's `store: volume`."""
