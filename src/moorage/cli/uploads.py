"""The local content that a run brings along: scanned, compared with the server's, sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from moorage.cli.transport import BYTES, Transport
from moorage.data.checkout import read as read_checkout
from moorage.data.digests import DigestCache
from moorage.data.scan import Scan, scan
from moorage.data.upload import Blob, Progress, Uploader
from moorage.errors import InvalidInput, Problem
from moorage.ids import Digest
from moorage.protocol.api import Info, MissingReply, MissingRequest, PackReply, PartReply
from moorage.specs.mounts import Bucket, Files, Repo
from moorage.specs.task import Task

if TYPE_CHECKING:
    from moorage.cli.prepare import Prepared


class Blobs:
    """The server's side of an upload, over HTTP."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def missing(self, digests: Sequence[Digest], trees: Sequence[Digest]) -> MissingReply:
        """Which of these does the server lack?"""
        body = MissingRequest(list(digests), list(trees))
        return self._transport.call(
            "POST", "/v1/blobs/missing", MissingReply, body=body, again=True
        )

    def put_pack(self, pack: bytes) -> int:
        """Store a pack; how many blobs of it are durable now."""
        reply = self._transport.call(
            "POST", "/v1/blobs/packs", PackReply, body=bytes(pack), media=BYTES, again=True
        )
        return reply.stored

    def part(self, digest: Digest) -> PartReply:
        """How much of a large blob has arrived."""
        return self._transport.call("GET", f"/v1/blobs/{digest}/part", PartReply)

    def put_part(self, digest: Digest, offset: int, size: int, data: bytes) -> PartReply:
        """Store the bytes at `offset` of a blob of `size` bytes in all."""
        query = {"offset": offset, "size": size}
        return self._transport.call(
            "PUT", f"/v1/blobs/{digest}", PartReply, body=bytes(data), query=query, media=BYTES
        )


@dataclass(frozen=True, slots=True)
class Content:
    """What one mount uploads."""

    source: str
    target: str
    scan: Scan
    pack: Blob | None = None
    new_bytes: int = 0
    """What the server lacks of it, before compression."""

    @property
    def files(self) -> int:
        """How many files it has."""
        return self.scan.files

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self.scan.size


@dataclass(slots=True)
class Gathered:
    """The spec with its trees, and what is wrong with the mounts at the positions in `broken`."""

    spec: Task
    contents: list[Content] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    broken: set[int] = field(default_factory=set)


def gather(transport: Transport, prepared: Prepared, cache: Path) -> Gathered:
    """Scan all local content of a run; nothing is sent. `cache` is a directory for what helps the
    next time."""
    gathered = Gathered(prepared.spec)
    mounts = list(prepared.spec.mounts)
    reader: _Reader | None = None
    for number, mount in enumerate(mounts):
        if isinstance(mount, Bucket):
            _require_sources(gathered, prepared, number, mount)
        path = prepared.local(mount)
        if path is None or not isinstance(mount, Files | Repo):
            continue
        if isinstance(mount, Files) and mount.target == "." and path.is_file():
            gathered.broken.add(number)
            said = f"{path} is a file, and is to be the working directory"
            gathered.problems.append(prepared.problem(number, said, "name a directory"))
            continue
        try:
            reader = reader or _Reader(transport, cache)
            mounts[number], content = reader.read(mount, path)
            gathered.contents.append(content)
        except InvalidInput as error:
            gathered.broken.add(number)
            gone = not os.path.lexists(path)
            for found in error.problems:
                place = f"{found.file}: " if found.file else ""
                fix = found.fix or (_relative(prepared) if gone else "")
                gathered.problems.append(prepared.problem(number, place + found.message, fix))
    gathered.spec = msgspec.structs.replace(prepared.spec, mounts=mounts)
    return gathered


def _require_sources(gathered: Gathered, prepared: Prepared, number: int, bucket: Bucket) -> None:
    """Say what cannot be uploaded into a bucket: it would be missed after the others were sent."""
    for source in bucket.sources:
        path = prepared.path(source)
        if path.is_file() or path.is_dir():
            continue
        reason = "is neither a file nor a directory" if os.path.lexists(path) else "does not exist"
        gathered.broken.add(number)
        gathered.problems.append(prepared.problem(number, f"{path} {reason}", _relative(prepared)))


def _relative(prepared: Prepared) -> str:
    where = "of the file" if prepared.file else "that you are in"
    return f"correct the path (paths are relative to the directory {where}), or make it"


class _Reader:
    """Scans with the digests of the last time, under the server's limit."""

    def __init__(self, transport: Transport, cache: Path) -> None:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._digests = DigestCache(cache / "digests.db")
        self._packs = cache / "repos"
        self._limit = transport.call("GET", "/v1/info", Info).upload_limit

    def read(self, mount: Files | Repo, path: Path) -> tuple[Files | Repo, Content]:
        """The mount with its tree, and its content."""
        shown = mount.source or str(path)
        if isinstance(mount, Files):
            found = scan(path, self._digests, limit=self._limit)
            filled = msgspec.structs.replace(mount, tree=found.tree)
            return filled, Content(shown, mount.target, found)
        checkout = read_checkout(path, self._packs, self._digests, limit=self._limit)
        repo = msgspec.structs.replace(
            mount,
            tree=checkout.scan.tree,
            pack=checkout.pack.digest if checkout.pack else None,
            head=checkout.head,
            branch=checkout.branch,
            remote=checkout.remote,
        )
        return repo, Content(shown, mount.target, checkout.scan, checkout.pack)


def compare(
    transport: Transport, contents: Sequence[Content], missing: Sequence[Digest]
) -> list[Content]:
    """The contents with what would be sent of each; `missing` is what the plan said."""
    lacking = set(missing)
    uploader = Uploader(Blobs(transport))
    return [
        replace(content, new_bytes=_wanted(uploader, content))
        if lacking.intersection(_digests(content))
        else content
        for content in contents
    ]


def _wanted(uploader: Uploader, content: Content) -> int:
    return uploader.wanted([content.scan], _packs([content])).bytes_total


def _digests(content: Content) -> list[Digest]:
    return [content.scan.tree, *(blob.digest for blob in _packs([content]))]


def _packs(contents: Sequence[Content]) -> list[Blob]:
    return [content.pack for content in contents if content.pack is not None]


def send(
    transport: Transport,
    contents: Sequence[Content],
    progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Make the server hold all of it; what it holds already is not sent. InvalidInput with every
    file that changed since it was scanned."""
    uploader = Uploader(Blobs(transport), progress=progress)
    return uploader.upload([content.scan for content in contents], _packs(contents))
