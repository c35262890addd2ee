"""One look at a bucket: is it there, what is in it, may it be written to. Calls block; nothing
secret is in what they say."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from moorage.data.objects.bucket import open_bucket
from moorage.data.objects.errors import StoreProblem
from moorage.specs.stores.record import Access

PATIENCE = 2.0
"""Seconds in which a store has to answer."""
PAGE = 1000


class Look(NamedTuple):
    """What one request told."""

    there: bool
    """The bucket is."""
    objects: int = 0
    bytes: int = 0
    more: bool = False
    """Beyond these."""
    single: bool = False
    """The path is that of an object."""


def look(access: Access, bucket: str, path: str = "", shown: str = "") -> Look:
    """`shown`: its address for people. StoreProblem where that cannot be said: no access, or no
    answer."""
    opened = open_bucket(access, bucket, patience=PATIENCE, shown=shown)
    try:
        pages = opened.list(path)
        page = next(pages, [])
        more = len(page) >= PAGE or next(pages, None) is not None
        if path and not page:
            try:
                head = opened.head(path)
            except StoreProblem as error:
                if error.reason != "no-object":
                    raise
            else:
                return Look(True, 1, head.size, single=True)
    except StoreProblem as error:
        if error.reason == "no-bucket":
            return Look(False)
        raise
    return Look(True, len(page), sum(one.size for one in page), more)


def try_writing(access: Access, bucket: str, path: str = "", shown: str = "") -> None:
    """Put an empty object below the path and delete it. StoreProblem where it may not be put; one
    that may not be deleted again is left. Only for a bucket that is there: some stores make one
    that is not."""
    opened = open_bucket(access, bucket, patience=PATIENCE, shown=shown)
    key = f"{path}/" if path else ""
    probe = f"{key}.moorage-probe-{secrets.token_hex(4)}"
    try:
        opened.put(probe, b"")
    except StoreProblem as error:
        if error.reason == "denied":
            fix = "allow it to put and delete objects, or mount with read_only: true"
            raise StoreProblem("denied", opened.shown, "it may not be written to", fix) from None
        raise
    try:
        opened.delete([probe])
    except StoreProblem as error:
        if error.reason == "denied":
            fix = "allow it to delete objects, or mount with read_only: true"
            said = f"objects may be put and not deleted ({probe} is left)"
            raise StoreProblem("denied", opened.shown, said, fix) from None
        raise
