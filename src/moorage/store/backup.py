"""One file with everything that a server knows, made while it works.

A tar of `moorage.db.zst` (a snapshot of the database), `packs/ID.pack` (all that the snapshot
names) and, last, `manifest.json` with the length and the BLAKE3 digest of each: a file that was
cut off has no manifest. Output of jobs is on the nodes, and secrets stay where they are.
"""

from __future__ import annotations

import sqlite3
import tarfile
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import msgspec
from backports import zstd
from blake3 import blake3
from msgspec import Struct

from moorage.errors import Unavailable
from moorage.store.blobs import Blobs
from moorage.store.telling import Tell, nobody
from moorage.store.workspace import workspace

DATABASE = "moorage.db.zst"
MANIFEST = "manifest.json"
FORMAT = 1
_CHUNK = 1024 * 1024
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)

Snapshot = Callable[[Path, Tell], None]
"""Writes an SQLite database with all that is committed to a path where nothing is."""


class Part(Struct, frozen=True):
    """A member of the file. Of the database: its length and digest before compression."""

    name: str
    bytes: int
    digest: str


class Manifest(Struct, frozen=True):
    """What the file holds, and from where."""

    format: int
    version: str
    """Of moorage."""
    schema: int
    created_at: float
    database: Part
    packs: list[Part]


class Backup:
    """A backup being made. `size` is about how many bytes it will have; `chunks` may be read
    once, and its end, or closing it, lets content be collected again."""

    def __init__(self, snapshot: Snapshot, blobs: Blobs, workspace: Path, version: str) -> None:
        self._snapshot = snapshot
        self._blobs = blobs
        self._workspace = workspace
        self._version = version
        self.size = 0

    def chunks(self, now: float, tell: Tell = nobody) -> Generator[bytes, None, None]:
        """The bytes of the file. The first comes when the snapshot is made and every pack was
        found; `tell` is told until then. Unavailable, before it, for a store that cannot be backed
        up."""
        with (
            self._blobs.paused(),
            workspace(self._workspace, "backup") as work,
        ):
            database = work / "snapshot"
            self._snapshot(database, tell)
            schema, packs = _contents(database)
            self._require(packs)
            part = _compressed(database, work / DATABASE, tell)
            database.unlink()
            length = (work / DATABASE).stat().st_size
            self.size = sum(map(_padded, [length, *(size for _, size in packs)]))
            with (work / DATABASE).open("rb") as file:
                yield from _member(DATABASE, length, file, now, [])
            parts: list[Part] = []
            for pack, size in packs:
                with self._blobs.open_pack(pack) as file:
                    yield from _member(f"packs/{pack}.pack", size, file, now, parts)
            manifest = Manifest(FORMAT, self._version, schema, now, part, parts)
            text = msgspec.json.encode(manifest)
            yield _header(MANIFEST, len(text), now) + text + bytes(-len(text) % _BLOCK) + _END

    def _require(self, packs: list[tuple[str, int]]) -> None:
        for pack, size in packs:
            try:
                with self._blobs.open_pack(pack) as file:
                    found = file.seek(0, 2)
            except FileNotFoundError:
                found = -1
            if found < size:
                raise Unavailable(
                    f"pack {pack} is damaged or missing: run moorage server check, which says "
                    "what is lost and repairs the rest, then back up"
                )


def _contents(database: Path) -> tuple[int, list[tuple[str, int]]]:
    with closing(sqlite3.connect(database)) as snapshot:
        [(schema,)] = snapshot.execute("SELECT value FROM meta WHERE key = 'schema_version'")
        return int(schema), snapshot.execute("SELECT id, bytes FROM packs ORDER BY id").fetchall()


def _compressed(source: Path, target: Path, tell: Tell) -> Part:
    compressor, hasher = zstd.ZstdCompressor(), blake3()
    size = source.stat().st_size
    with source.open("rb") as file, target.open("wb") as out:
        while chunk := file.read(_CHUNK):
            tell("compressed", file.tell(), size)
            hasher.update(chunk)
            out.write(compressor.compress(chunk))
        out.write(compressor.flush())
        return Part(DATABASE, file.tell(), hasher.hexdigest())


def _member(
    name: str, size: int, file: BinaryIO, now: float, parts: list[Part]
) -> Generator[bytes, None, None]:
    hasher, left = blake3(), size
    yield _header(name, size, now)
    file.seek(0)
    while left:
        chunk = file.read(min(_CHUNK, left))
        if not chunk:
            raise Unavailable(f"{name} became shorter while it was read")
        left -= len(chunk)
        hasher.update(chunk)
        yield chunk
    parts.append(Part(name, size, hasher.hexdigest()))
    if size % _BLOCK:
        yield bytes(-size % _BLOCK)


def _header(name: str, size: int, now: float) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, int(now)
    return info.tobuf(tarfile.GNU_FORMAT)


def _padded(size: int) -> int:
    return _BLOCK + size + -size % _BLOCK
