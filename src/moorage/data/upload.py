"""Sends trees and blobs to a server: only what it lacks, in parallel, resumable.

Order is what makes an interruption harmless: files first, in packs that the server keeps as soon
as it answers; manifests last, so that a tree the server knows is whole.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from moorage.data.packing import Content, Packer, read_part
from moorage.data.scan import LocalFile, Scan
from moorage.errors import InvalidInput, Problem, Unavailable
from moorage.ids import Digest
from moorage.protocol.api import MissingReply, PartReply
from moorage.protocol.packs import CHUNK_LIMIT

_BATCH = 10_000
"""Digests in one question."""
_PART = 8 * 1024 * 1024
_RESTARTS = 5
"""How often a file may begin anew because servers took over from each other."""


class Transport(Protocol):
    """What an upload needs of a server. Called from several threads at once; errors are raised as
    they are and end the upload, which may be repeated at any time."""

    def missing(self, digests: Sequence[Digest], trees: Sequence[Digest]) -> MissingReply:
        """Which of these does the server lack?"""

    def put_pack(self, pack: bytes) -> int:
        """Store a pack; durable on return. How many blobs of it are stored now."""

    def part(self, digest: Digest) -> PartReply:
        """How much of a large blob has arrived; nothing yet is 0."""

    def put_part(self, digest: Digest, offset: int, size: int, data: bytes) -> PartReply:
        """Store the bytes at `offset` of a blob of `size` bytes in all."""


class Blob(NamedTuple):
    """A single blob that is no tree: a git pack."""

    digest: Digest
    file: LocalFile


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an upload is. `bytes` are raw, `sent` is what went over the wire."""

    files: int = 0
    files_total: int = 0
    bytes: int = 0
    bytes_total: int = 0
    sent: int = 0


class Uploader:
    """Uploads with `threads` connections; `progress` is called from their threads, one at a time,
    after each pack and part."""

    def __init__(
        self,
        transport: Transport,
        *,
        threads: int = 3,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._transport = transport
        self._threads = threads
        self._report = progress or (lambda progress: None)

    def upload(self, scans: Sequence[Scan], blobs: Sequence[Blob] = ()) -> Progress:
        """Make the server hold all of these. InvalidInput with every file that changed since it
        was scanned; what was sent until then is not sent again."""
        reply = self._transport.missing(
            [blob.digest for blob in blobs], [scan.tree for scan in scans]
        )
        lacking = [scan for scan in scans if scan.tree in set(reply.trees)]
        files = {d: file for scan in lacking for d, file in scan.contents.items()}
        wanted = {digest: files[digest] for digest in self._lacking(list(files))}
        wanted |= {blob.digest: blob.file for blob in blobs if blob.digest in set(reply.digests)}
        done = self._send([_of_file(d, file) for d, file in wanted.items()], Progress())
        manifests = {scan.tree: scan.encoded for scan in lacking}
        return self._send([Content(d, len(data), data) for d, data in manifests.items()], done)

    def wanted(self, scans: Sequence[Scan], blobs: Sequence[Blob] = ()) -> Progress:
        """What `upload` would send (`files_total`, `bytes_total`), asking only."""
        reply = self._transport.missing(
            [blob.digest for blob in blobs], [scan.tree for scan in scans]
        )
        sizes = {blob.digest: blob.file[1][0] for blob in blobs if blob.digest in reply.digests}
        for scan in scans:
            if scan.tree in reply.trees:
                lacking = self._lacking(list(scan.contents))
                sizes |= {digest: scan.contents[digest][1][0] for digest in lacking}
        return Progress(files_total=len(sizes), bytes_total=sum(sizes.values()))

    def _lacking(self, digests: list[Digest]) -> Iterable[Digest]:
        for begin in range(0, len(digests), _BATCH):
            yield from self._transport.missing(digests[begin : begin + _BATCH], []).digests

    def _send(self, contents: list[Content], before: Progress) -> Progress:
        if not contents:
            return before
        job = _Job(self._transport, self._report, contents, before)
        count = min(self._threads, len(contents))
        with ThreadPoolExecutor(count, thread_name_prefix="upload") as pool:
            threads = [pool.submit(job.work) for _ in range(count)]
        for thread in threads:
            thread.result()
        if job.problems:
            raise InvalidInput(*sorted(job.problems))
        return job.progress


def _of_file(digest: Digest, file: LocalFile) -> Content:
    path, identity = file
    return Content(digest, identity[0], Path(path), identity)


class _Job:
    """What the threads of one upload share."""

    def __init__(
        self,
        transport: Transport,
        report: Callable[[Progress], None],
        contents: list[Content],
        before: Progress,
    ) -> None:
        self._transport = transport
        self._report = report
        # Large files first: the last one to end should not be the one that takes longest.
        large = [content for content in contents if content.size > CHUNK_LIMIT]
        small = [content for content in contents if content.size <= CHUNK_LIMIT]
        self._large = deque(large)
        self._small = deque(small)
        self._lock = threading.Lock()
        self._failed = False
        self.problems: list[Problem] = []
        total = before.bytes_total + sum(content.size for content in contents)
        self.progress = Progress(
            before.files, before.files_total + len(contents), before.bytes, total, before.sent
        )

    def work(self) -> None:
        """Send until nothing is left or another thread failed."""
        try:
            while not self._failed:
                content = self._next(self._large)
                if content is None:
                    break
                self._part_by_part(content)
            packer = Packer()
            while not self._failed:
                content = self._next(self._small)
                if content is None:
                    break
                self._pack(packer, content)
            if packer.count and not self._failed:
                self._put(packer)
        except BaseException:
            self._failed = True
            raise

    def _next(self, queue: deque[Content]) -> Content | None:
        try:
            return queue.popleft()
        except IndexError:
            return None

    def _pack(self, packer: Packer, content: Content) -> None:
        try:
            full = packer.add(content)
        except OSError as error:
            self._changed(content, error)
            return
        if full:
            self._put(packer)

    def _put(self, packer: Packer) -> None:
        count, size, pack = packer.take()
        stored = self._transport.put_pack(pack)
        if stored < count:
            raise Unavailable(f"the server stored {stored} of {count} blobs; try again")
        self._advance(count, size, len(pack))

    def _part_by_part(self, content: Content) -> None:
        reply = self._transport.part(content.digest)
        self._advance(0, reply.received, 0)
        restarts = 0
        while not reply.complete:
            try:
                data = read_part(content, reply.received, _PART)
            except OSError as error:
                self._changed(content, error)
                return
            before = reply.received
            reply = self._transport.put_part(content.digest, before, content.size, data)
            if reply.received <= before and not reply.complete:
                restarts += 1
                if restarts <= _RESTARTS:  # another server took over, which has less of it
                    continue
                raise Unavailable(f"the server does not take {content.shown}; try again")
            self._advance(0, len(data), len(data))
        self._advance(1, 0, 0)

    def _changed(self, content: Content, error: OSError) -> None:
        fix = "let it rest, or leave it out by a line in .moorageignore, and try again"
        with self._lock:
            reason = error.strerror or str(error)
            self.problems.append(Problem(reason, fix, file=content.shown))

    def _advance(self, files: int, size: int, sent: int) -> None:
        with self._lock:
            now = self.progress
            self.progress = Progress(
                now.files + files,
                now.files_total,
                min(now.bytes + size, now.bytes_total),
                now.bytes_total,
                now.sent + sent,
            )
            self._report(self.progress)
