"""Deletes the content that nothing refers to.

Three steps, each safe to be cut off at any point: rows of dead blobs go; files without a row go;
packs of which most is dead, and many small ones, are copied (the new file, then the rows, then the
old file goes). So a file outlives its rows, never the reverse, and what a crash leaves is an
orphan for the next time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

import msgspec

from moorage.errors import NotFound, Unavailable
from moorage.ids import Digest
from moorage.protocol import tree
from moorage.protocol.api import CollectReply
from moorage.protocol.packs import HEADER, PACK_TARGET, Frame
from moorage.store.base import Row, Statement, Store
from moorage.store.frames import moved, spans
from moorage.store.packs import Packs
from moorage.store.parts import Partials
from moorage.store.telling import Tell, nobody
from moorage.store.writer import Writer

_BATCH = 500
_SMALL = 1024 * 1024
"""Bytes below which a pack is small; so many make it worth while to merge them."""
_WORTH_MERGING = 16
_log = logging.getLogger(__name__)


class Collector:
    """Mark and sweep over the index and the files. One collection at a time."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        files: Packs,
        partials: Partials,
        read: Callable[[str], bytes],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._writer = writer
        self._files = files
        self._partials = partials
        self._read = read
        self._clock = clock
        self._one = Lock()

    def collect(
        self,
        before: float,
        *,
        limit: int = 0,
        floor: float = 0.0,
        dry_run: bool = False,
        tell: Tell = nobody,
    ) -> CollectReply:
        """Delete blobs that no run refers to and that nobody relied on since `before`; where the
        rest is more than `limit` bytes (0: never), also those since `floor`, the longest unused
        first. How many, and the bytes of disk that came free; with `dry_run`, that would."""
        if not self._one.acquire(blocking=False):
            return CollectReply(0, 0, skipped=["content: a backup or a check reads it now"])
        try:
            dead = self._dead(before, limit, floor, tell)
            if dry_run:
                return CollectReply(len(dead), sum(map(_room, dead)))
            blobs = self._drop(dead, max(before, floor) if limit else before, tell)
            freed = self._remove_orphans() + self._partials.remove_old(before)
            # Last, because a copy needs space before it frees any.
            for group in self._to_copy():
                tell("packs", 0, 0)
                freed += self._rewrite(group)
            return CollectReply(blobs, freed)
        finally:
            self._one.release()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is deleted or moved within the block."""
        with self._one:
            yield

    def _to_copy(self) -> Iterator[list[str]]:
        for pack in self._store.read("sparse_packs"):
            yield [pack["id"]]
        yield from self._small()

    def _dead(self, before: float, limit: int, floor: float, tell: Tell) -> list[Row]:
        old = self._store.read("old_blobs", {"before": max(before, floor) if limit else before})
        if not old:
            return []
        live = self._marked(tell)
        loose = [row for row in old if row["digest"] not in live]
        if not limit:
            return loose
        total: int = self._store.read("content_bytes")[0]["total"]
        dead = []
        for row in sorted(loose, key=lambda row: row["added_at"]):
            if row["added_at"] < before or total > limit:
                dead.append(row)
                total -= _room(row)
        return dead

    def _drop(self, dead: Sequence[Row], before: float, tell: Tell) -> int:
        for first in range(0, len(dead), _BATCH):
            tell("blobs", first, len(dead))
            # `before` once more: what was relied on since we looked must stay.
            batch = [
                Statement(
                    "delete_blob",
                    {"digest": row["digest"], "pack": row["pack"], "before": before},
                )
                for row in dead[first : first + _BATCH]
            ]
            self._writer.submit(batch).result()
        wanted = msgspec.json.encode([row["digest"] for row in dead]).decode()
        return len(dead) - len(self._store.read("blobs", {"digests": wanted}))

    def _small(self) -> Iterator[list[str]]:
        """Groups of small packs that are worth one: a file each for thousands of small uploads
        is slow to list, to back up and to fetch from."""
        packs = self._store.read("small_packs", {"bytes": _SMALL})
        if len(packs) < _WORTH_MERGING:
            return
        group: list[str] = []
        size = 0
        for pack in packs:
            group.append(pack["id"])
            size += pack["bytes"]
            if size >= PACK_TARGET:
                yield group
                group, size = [], 0
        if len(group) > 1:
            yield group

    def _marked(self, tell: Tell) -> set[str]:
        """Every digest that a run keeps alive, through manifests."""
        live: set[str] = set()
        uses = self._store.read("referenced")
        for number, row in enumerate(uses):
            tell("trees", number, len(uses))
            live.add(row["digest"])
            if row["kind"] == "tree":
                live.update(self._named_by(row["digest"]))
        return live

    def _named_by(self, root: str) -> list[Digest]:
        try:
            entries = tree.decode(self._read(root)).entries
        except (NotFound, msgspec.DecodeError) as error:
            # Nothing to protect; a manifest damaged on disk raises otherwise and ends this.
            _log.warning("a run refers to tree %s, which cannot be read: %s", root, error)
            return []
        return [entry.digest for entry in entries if entry.digest is not None]

    def _rewrite(self, olds: Sequence[str]) -> int:
        """Copy what lives of some packs into a new one, then drop them; the bytes freed."""
        lying = [(old, self._frames(old)) for old in olds]
        places = moved([frame for _, frames in lying for frame in frames])
        drops = [Statement("delete_pack", {"id": old}) for old in olds]
        if not places:
            self._writer.submit(drops).result()
            return sum(map(self._files.remove, olds))
        size = places[-1].start + places[-1].length
        sources = [old for old, frames in lying for _ in frames]
        with self._files.new() as new:
            pieces = [piece for old, frames in lying for piece in self._pieces(old, frames)]
            self._files.write(new, pieces)
            pack = {"id": new, "bytes": size, "added_at": self._clock()}
            moves = [
                Statement(
                    "move_blob",
                    {"digest": to.digest, "pack": new, "start": to.start, "old_pack": old},
                )
                for old, to in zip(sources, places, strict=True)
            ]
            self._writer.submit([Statement("insert_pack", pack), *moves, *drops]).result()
        return sum(map(self._files.remove, olds)) - size

    def _frames(self, pack: str) -> list[Frame]:
        rows = self._store.read("blobs_of_pack", {"pack": pack})
        return [Frame(row["digest"], row["start"], row["length"], row["size"]) for row in rows]

    def _pieces(self, pack: str, frames: list[Frame]) -> list[bytes]:
        pieces: list[bytes] = []
        if not frames:
            return pieces
        with self._files.open(pack) as file:
            for begin, end in spans(frames):
                file.seek(begin)
                piece = file.read(end - begin)
                if len(piece) != end - begin:
                    raise Unavailable(f"a pack file is shorter than its index says: {file.name}")
                pieces.append(piece)
        return pieces

    def _remove_orphans(self) -> int:
        # In this order: a pack that is neither unfinished nor known now was listed as a leftover.
        there, unfinished = self._files.listing()
        known = {row["id"] for row in self._store.read("packs")}
        leftovers = [pack for pack in there if pack not in unfinished and pack not in known]
        return sum(self._files.remove(pack) for pack in leftovers)


def _room(row: Row) -> int:
    length: int = row["length"]
    return length + HEADER.size
