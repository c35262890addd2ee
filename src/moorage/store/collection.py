"""Deletes the content that nothing refers to.

Three steps, each safe to be cut off at any point: rows of dead blobs go; files without a row go;
packs of which most is dead are copied (the new file, then the rows, then the old file goes). So a
file outlives its rows, never the reverse, and what a crash leaves is an orphan for the next time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock

import msgspec

from moorage.errors import NotFound, Unavailable
from moorage.ids import Digest
from moorage.protocol import tree
from moorage.protocol.api import CollectReply
from moorage.protocol.packs import Frame
from moorage.store.base import Statement, Store
from moorage.store.frames import moved, spans
from moorage.store.packfiles import PackFiles
from moorage.store.parts import Partials
from moorage.store.writer import Writer

_BATCH = 2000
_log = logging.getLogger(__name__)


class Collector:
    """Mark and sweep over the index and the files. One collection at a time."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        files: PackFiles,
        partials: Partials,
        read: Callable[[str], bytes],
    ) -> None:
        self._store = store
        self._writer = writer
        self._files = files
        self._partials = partials
        self._read = read
        self._one = Lock()

    def collect(self, before: float) -> CollectReply:
        """Delete blobs that no run refers to and that nobody relied on since `before`; how many,
        and the bytes of disk that came free."""
        with self._one:
            blobs = self._drop_dead(before)
            freed = self._remove_orphans() + self._partials.remove_old(before)
            # Last, because a copy needs space before it frees any.
            freed += sum(self._rewrite(pack["id"]) for pack in self._store.read("sparse_packs"))
            return CollectReply(blobs, freed)

    def _drop_dead(self, before: float) -> int:
        old = self._store.read("old_blobs", {"before": before})
        if not old:
            return 0
        live = self._marked()
        dead = [row for row in old if row["digest"] not in live]
        for first in range(0, len(dead), _BATCH):
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

    def _marked(self) -> set[str]:
        """Every digest that a run keeps alive, through manifests."""
        live: set[str] = set()
        for row in self._store.read("referenced"):
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

    def _rewrite(self, old: str) -> int:
        """Copy what lives of a pack into a new one, then drop the old; the bytes freed."""
        rows = self._store.read("blobs_of_pack", {"pack": old})
        if not rows:
            self._writer.submit([Statement("delete_pack", {"id": old})]).result()
            return self._files.remove(old)
        frames = [Frame(row["digest"], row["start"], row["length"], row["size"]) for row in rows]
        places = moved(frames)
        size = places[-1].start + places[-1].length
        with self._files.new() as new:
            self._files.write(new, self._pieces(old, frames))
            pack = {"id": new, "bytes": size, "added_at": max(row["added_at"] for row in rows)}
            moves = [
                Statement(
                    "move_blob",
                    {"digest": to.digest, "pack": new, "start": to.start, "old_pack": old},
                )
                for to in places
            ]
            drop = Statement("delete_pack", {"id": old})
            self._writer.submit([Statement("insert_pack", pack), *moves, drop]).result()
        return self._files.remove(old) - size

    def _pieces(self, pack: str, frames: list[Frame]) -> list[bytes]:
        pieces = []
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
