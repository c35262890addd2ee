"""A whole check of a store, in use or not: the file, the tables, the content."""

from __future__ import annotations

from typing import NamedTuple

from moorage.protocol.api import CheckReply, Finding
from moorage.store.base import Store, StoreBroken
from moorage.store.blobs import Blobs
from moorage.store.check import Found, check_tables
from moorage.store.sqlite import SqliteStore
from moorage.store.sqlite_file import is_index_damage
from moorage.store.telling import Tell, nobody


class Checked(NamedTuple):
    """What a check found, and with it what repairs it."""

    reply: CheckReply
    found: list[Found]


def check_store(
    store: Store, blobs: Blobs | None, now: float, *, deep: bool, tell: Tell = nobody
) -> Checked:
    """Look at everything. Without `blobs`, or where the file itself is damaged, content is not
    looked at. Blocks."""
    found = _file(store, tell)
    sound = all(one.finding.repairable for one in found)
    counts: dict[str, int] = {}
    try:
        if sound:
            counts = dict(store.read("check_counts")[0])
            found += check_tables(store, now, tell)
            if blobs is not None:
                found += blobs.check(deep=deep, tell=tell)
    except StoreBroken as error:
        found.append(Found(Finding(str(error), "restore a backup: moorage server restore FILE")))
    return Checked(CheckReply([one.finding for one in found], counts, deep), found)


def _file(store: Store, tell: Tell) -> list[Found]:
    if not isinstance(store, SqliteStore):
        return []
    try:
        lines = store.file.damage(tell)
    except StoreBroken as error:  # its words end with the remedy
        problem, _, remedy = str(error).rpartition(": ")
        return [Found(Finding(problem, remedy))]
    return [Found(_told(line)) for line in lines]


def _told(line: str) -> Finding:
    if is_index_damage(line):
        return Finding(f"the database: {line}", "the index is built anew", repairable=True)
    return Finding(
        f"the database: {line}", "restore a backup: moorage server restore FILE (new home)"
    )
