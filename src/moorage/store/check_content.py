"""Proves content: packs are as long as their rows say, and, asked to look deeper, every blob is
what its digest names and every tree of a run is whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

import msgspec
from backports import zstd
from blake3 import blake3

from moorage.errors import MoorageError
from moorage.protocol import tree
from moorage.protocol.api import Finding
from moorage.protocol.packs import HEADER, header
from moorage.store.base import Row, Statement, Store
from moorage.store.check import Found
from moorage.store.frames import require_digest
from moorage.store.packs import Packs
from moorage.store.stream import stream
from moorage.store.telling import Tell, nobody

_CHUNK = 1024 * 1024
_LOST = "its content is lost: its row is removed, so that the next upload brings it again"
_DAMAGED = "the bytes are damaged"


def check_content(
    store: Store, packs: Packs, *, deep: bool, tell: Tell = nobody
) -> Iterator[Found]:
    """Everything wrong; nothing may be collected meanwhile."""
    damaged: set[str] = set()
    there = store.read("packs")
    total = sum(pack["bytes"] for pack in there)
    before = 0
    for pack in there:
        tell("content", before, total)
        look = partial(_told, tell, before, total) if deep else None
        for found in _pack(store, packs, pack, look):
            damaged.update(each.params.get("digest", "") for each in found.repair)
            yield found
        before += pack["bytes"]
    if deep:
        yield from _trees(store, packs, damaged, tell)


def _told(tell: Tell, before: int, total: int, reached: int) -> None:
    tell("content", before + reached, total)


def _pack(
    store: Store, packs: Packs, pack: Row, look: Callable[[int], None] | None
) -> Iterator[Found]:
    """`look`, for a deep check, is told how far in the pack it is."""
    try:
        file = packs.open(pack["id"])
        length = file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        rows = store.read("blobs_of_pack", _named(pack))
        gone = Statement("delete_pack", {"id": pack["id"]})
        yield _lost(f"pack {pack['id']} is missing", rows, gone)
        return
    with file:
        rows = store.read("blobs_of_pack", _named(pack))
        if length < pack["bytes"]:
            cut = [row for row in rows if row["start"] + row["length"] > length]
            told = f"pack {pack['id']} has {length} bytes, not {pack['bytes']}"
            short = Statement("repair_pack_length", {"id": pack["id"], "bytes": length})
            yield _lost(told, cut, short)
            rows = [row for row in rows if row not in cut]
        if look is not None:
            for row in rows:
                if reason := wrong(file, row, look):
                    yield _lost(f"blob {row['digest']} in pack {row['pack']}: {reason}", [row])


def _named(pack: Row) -> dict[str, str]:
    return {"pack": pack["id"]}


def _lost(problem: str, rows: list[Row], *more: Statement) -> Found:
    repair = (
        tuple(
            Statement("repair_forget_blob", {"digest": row["digest"], "pack": row["pack"]})
            for row in rows
        )
        + more
    )
    told = f"{problem} ({len(rows)} blobs)" if len(rows) != 1 else problem
    return Found(Finding(told, _LOST, bool(repair)), repair)


def wrong(file: BinaryIO, row: Row, look: Callable[[int], None]) -> str:
    """What is wrong with one blob's bytes; empty if nothing is. Large ones are read in chunks."""
    look(row["start"])
    file.seek(row["start"] - HEADER.size)
    if file.read(HEADER.size) != header(require_digest(row["digest"]), row["length"], row["size"]):
        return "its header is another's"
    decompressor = zstd.ZstdDecompressor()
    hasher, size, left = blake3(), 0, row["length"]
    try:
        while left:
            chunk = file.read(min(_CHUNK, left))
            if not chunk or decompressor.eof:
                return _DAMAGED
            left -= len(chunk)
            look(row["start"] + row["length"] - left)
            raw = decompressor.decompress(chunk)
            hasher.update(raw)
            size += len(raw)
    except zstd.ZstdError:
        return _DAMAGED
    if (size, hasher.hexdigest(), decompressor.eof) != (row["size"], row["digest"], True):
        return "it holds other content than its digest names"
    return ""


def _trees(store: Store, packs: Packs, damaged: set[str], tell: Tell) -> Iterator[Found]:
    uses = store.read("referenced")
    for number, use in enumerate(uses):
        tell("trees", number, len(uses))
        if use["kind"] != "tree" or use["digest"] in damaged:
            continue
        named = _manifest(store, packs, use["digest"])
        if named is None:
            told = f"the manifest of tree {use['digest']} cannot be read"
            yield Found(Finding(told, "submit the runs that name it again"))
            continue
        known = {row["digest"] for row in _rows(store, sorted(named))} - damaged
        if absent := len(named - known):
            told = f"tree {use['digest']} lacks {absent} of {len(named)} files"
            yield Found(Finding(told, "submit its run again: what is missing is uploaded then"))


def _manifest(store: Store, packs: Packs, root: str) -> set[str] | None:
    """The digests that a tree names; none where it is not here at all, which another rule says."""
    rows = _rows(store, [root])
    if not rows:
        return set()

    def again(digests: object) -> list[Row]:
        return _rows(store, [root])

    try:
        frame = b"".join(stream(packs, rows, again, headers=False))
        entries = tree.decode(zstd.decompress(frame)).entries
    except (MoorageError, zstd.ZstdError, msgspec.DecodeError):
        return None
    return {entry.digest for entry in entries if entry.digest is not None}


def _rows(store: Store, digests: list[str]) -> list[Row]:
    return store.read("blobs", {"digests": msgspec.json.encode(digests).decode()})
