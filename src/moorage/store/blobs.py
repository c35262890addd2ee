"""The server's content: packs of bytes, and an index of every blob in the database.

Content is durable before it is acknowledged: the file first, then its rows, then the reply. What
a client was told is there stays for a grace period, because `missing` and `add_pack` note the time
(`added_at`) before they answer; `collection.py` deletes nothing that was noted since.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import msgspec

from moorage.errors import InvalidInput, NotFound, Unavailable
from moorage.ids import Digest
from moorage.protocol import tree
from moorage.protocol.api import CollectReply, MissingReply, PartReply
from moorage.protocol.packs import Frame
from moorage.store.base import Row, Statement, Store
from moorage.store.check import Found
from moorage.store.check_content import check_content
from moorage.store.collection import Collector
from moorage.store.frames import (
    moved,
    require_allowed,
    require_digest,
    spans,
    unpack,
    verified,
)
from moorage.store.packfiles import PackFiles
from moorage.store.packs import Packs
from moorage.store.parts import Partials
from moorage.store.stream import stream
from moorage.store.telling import Tell, nobody
from moorage.store.writer import Writer

_NOTE_AGAIN = 3600.0
"""Seconds for which a blob's `added_at` is good enough: an unchanged upload of 20,000 files should
not write 20,000 rows each time. Grace periods must be much longer."""
LEAST_GRACE = 7200.0


class Blobs:
    """Content by digest. Thread-safe; every method may block on the disk.

    Large uploads under way are kept under `directory/partial`; `packs` is where the bytes stay,
    the files `directory/packs` if it is not given. `upload_limit` is the bytes one blob may have,
    0 for no limit."""

    def __init__(
        self,
        directory: Path,
        store: Store,
        writer: Writer,
        *,
        packs: Packs | None = None,
        upload_limit: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        """Where large things may lie while they are made."""
        self._store = store
        self._writer = writer
        self._upload_limit = upload_limit
        self._clock = clock
        self._verifying = Lock()
        self._files: Packs = packs or PackFiles(directory / "packs")
        self._partials = Partials(directory / "partial")
        self._collector = Collector(store, writer, self._files, self._partials, self.read, clock)

    def add_pack(self, data: bytes) -> int:
        """Keep the blobs of a pack; how many distinct ones it has, all durable now.

        InvalidInput, naming the digest, if any blob is not what it says; then nothing is kept.
        Unavailable when the disk is full.
        """
        with self._verifying:  # thousands of short calls: threads side by side take twice as long
            frames = verified(data, self._upload_limit)
        absent = self._absent(frames)
        if absent:
            news = [frame for digest, frame in frames.items() if digest in absent]
            self._files.require_space(len(data))
            view = memoryview(data)
            with self._files.new() as pack:
                self._files.write(pack, [view[begin:end] for begin, end in spans(news)])
                self._index(pack, moved(news))
        return len(frames)

    def missing(self, digests: Sequence[str] = (), trees: Sequence[str] = ()) -> MissingReply:
        """Which of these are not here. A tree is here with its manifest and every file in it;
        InvalidInput when a blob that is here is no manifest."""
        wanted = [require_digest(digest) for digest in digests]
        roots = [require_digest(digest) for digest in trees]
        absent = self._absent([*wanted, *roots])
        files = {root: self.files_of(root) for root in roots if root not in absent}
        without = self._absent({digest for found in files.values() for digest in found})
        return MissingReply(
            [digest for digest in wanted if digest in absent],
            [root for root in roots if root in absent or not without.isdisjoint(files[root])],
        )

    def files_of(self, root: Digest) -> list[Digest]:
        """The digests that a manifest names; NotFound, or InvalidInput where it is none."""
        try:
            entries = tree.decode(self.read(root)).entries
        except msgspec.DecodeError:
            raise InvalidInput(f"blob {root} is not the manifest of a tree") from None
        return [entry.digest for entry in entries if entry.digest is not None]

    def read(self, digest: str) -> bytes:
        """The raw bytes of one blob, whole and checked; NotFound, or Unavailable where the disk
        gives other bytes back than it got."""
        wanted = require_digest(digest)
        [row] = self._located([wanted])
        frame = b"".join(stream(self._files, [row], self._located, headers=False))
        try:
            return unpack(frame, wanted, row["size"])
        except ValueError as error:
            raise Unavailable(f"the server's disk damaged pack {row['pack']}: {error}") from None

    def iter_pack(self, digests: Sequence[str]) -> Iterator[bytes]:
        """A pack of exactly these blobs, in this order, as chunks to send. NotFound, before the
        first chunk, names what is not here."""
        wanted = [require_digest(digest) for digest in digests]
        return stream(self._files, self._located(wanted), self._located)

    def part(self, digest: str) -> PartReply:
        """How much of a large blob is here."""
        wanted = require_digest(digest)
        with self._partials.lock(wanted):
            return self._progress(wanted)

    def append_part(self, digest: str, offset: int, size: int, data: bytes) -> PartReply:
        """Add the bytes at `offset` of a blob of `size` bytes; the reply says from where to go on,
        which is elsewhere than `offset + len(data)` after a repetition or a gap. The last part
        is answered when the blob is verified and durable; InvalidInput, and nothing is left of
        it, where its digest is wrong."""
        wanted = require_digest(digest)
        require_allowed(wanted, size, self._upload_limit)
        with self._partials.lock(wanted):
            progress = self._progress(wanted)
            if progress.complete:
                return progress
            received = self._partials.append(wanted, offset, size, data)
            if received == size:
                self._finish(wanted, size)
            return PartReply(received, received == size)

    def collect(
        self,
        now: float,
        grace: float,
        *,
        limit: int = 0,
        dry_run: bool = False,
        tell: Tell = nobody,
    ) -> CollectReply:
        """Delete what no run refers to and nobody relied on for `grace` seconds (hours at least,
        unless nobody uploads or submits meanwhile); where all is more than `limit` bytes (0: no
        limit), also what nobody relied on for two hours. With `dry_run`, only count it."""
        floor = now - LEAST_GRACE
        return self._collector.collect(
            now - grace, limit=limit, floor=floor, dry_run=dry_run, tell=tell
        )

    def paused(self) -> AbstractContextManager[None]:
        """No collection happens within the block."""
        return self._collector.paused()

    def open_pack(self, pack: str) -> BinaryIO:
        """The bytes of a pack; FileNotFoundError."""
        return self._files.open(pack)

    def check(self, *, deep: bool, tell: Tell = nobody) -> list[Found]:
        """Whether the packs are all there, and, `deep`, whether every blob is what it says. No
        collection happens meanwhile."""
        with self._collector.paused():
            return list(check_content(self._store, self._files, deep=deep, tell=tell))

    def _progress(self, digest: Digest) -> PartReply:
        if not self._absent([digest]):
            [row] = self._located([digest])
            return PartReply(row["size"], True)
        return PartReply(self._partials.received(digest), False)

    def _finish(self, digest: Digest, size: int) -> None:
        with self._files.new() as pack:
            with self._files.create(pack) as file:
                length = self._partials.pack(digest, size, file)
            self._index(pack, moved([Frame(digest, 0, length, size)]))
        self._partials.remove(digest)

    def _index(self, pack: str, frames: Sequence[Frame]) -> None:
        now = self._clock()
        last = frames[-1]
        batch = [
            Statement(
                "insert_pack", {"id": pack, "bytes": last.start + last.length, "added_at": now}
            )
        ]
        batch += [
            Statement(
                "insert_blob",
                {
                    "digest": frame.digest,
                    "pack": pack,
                    "start": frame.start,
                    "length": frame.length,
                    "size": frame.size,
                    "added_at": now,
                },
            )
            for frame in frames
        ]
        self._writer.submit(batch).result()

    def _absent(self, digests: Iterable[Digest]) -> set[Digest]:
        """Those that are not here; the grace period of the others begins anew.

        A collection may delete an old blob between our look and our note, so what had to be noted
        is looked for again afterwards.
        """
        now = self._clock()
        rows = self._to_note(digests, now)
        stale = [row["digest"] for row in rows if row["added_at"] is not None]
        absent = {row["digest"] for row in rows if row["added_at"] is None}
        if stale:
            self._writer.submit(
                [Statement("touch_blob", {"digest": digest, "added_at": now}) for digest in stale]
            ).result()
            absent.update(row["digest"] for row in self._to_note(stale, now))
        return absent

    def _to_note(self, digests: Iterable[Digest], now: float) -> list[Row]:
        since = now - _NOTE_AGAIN
        return self._store.read("blobs_to_note", {"digests": _json(digests), "since": since})

    def _located(self, digests: Sequence[Digest]) -> list[Row]:
        """A row for each, in the same order; NotFound names the first that is not here."""
        rows = self._store.read("blobs", {"digests": _json(digests)})
        found = {row["digest"]: row for row in rows}
        try:
            return [found[digest] for digest in digests]
        except KeyError as error:
            raise NotFound(f"the server has no blob {error.args[0]}") from None


def _json(digests: Iterable[Digest]) -> str:
    return msgspec.json.encode(list(digests)).decode()
