"""A server for tests, of which the product is a part: blobs in a directory, behind both the
client's `Transport` and the node's `Fetch`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from backports import zstd
from blake3 import blake3

from moorage.ids import Digest
from moorage.protocol import packs, tree
from moorage.protocol.api import MissingReply, PartReply


class DirectoryServer:
    """Keeps packs as files below `directory`; calls are counted by name in `calls`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._lock = threading.Lock()
        self._where: dict[Digest, tuple[Path, packs.Frame]] = {}
        self._partial: dict[Digest, bytearray] = {}
        self.calls: dict[str, int] = {}

    def missing(self, digests: Sequence[Digest], trees: Sequence[Digest]) -> MissingReply:
        """See `upload.Transport`."""
        self._count("missing")
        return MissingReply(
            [digest for digest in digests if digest not in self._where],
            [digest for digest in trees if not self._whole(digest)],
        )

    def put_pack(self, pack: bytes) -> int:
        """See `upload.Transport`."""
        frames = list(packs.frames(pack))
        for frame in frames:
            data = zstd.decompress(pack[frame.start : frame.start + frame.length])
            if blake3(data).hexdigest() != frame.digest or len(data) != frame.size:
                raise ValueError(f"blob {frame.digest} is not what it says")
        with self._lock:
            number = self.calls.get("put_pack", 0)
        path = self._directory / f"{number}-{threading.get_ident()}.pack"
        path.write_bytes(pack)
        with self._lock:
            self._where.update({frame.digest: (path, frame) for frame in frames})
        self._count("put_pack")
        return len(frames)

    def part(self, digest: Digest) -> PartReply:
        """See `upload.Transport`."""
        self._count("part")
        return PartReply(len(self._partial.get(digest, b"")), digest in self._where)

    def put_part(self, digest: Digest, offset: int, size: int, data: bytes) -> PartReply:
        """See `upload.Transport`."""
        self._count("put_part")
        held = self._partial.setdefault(digest, bytearray())
        if offset != len(held):
            return PartReply(len(held), False)
        held += data
        if len(held) < size:
            return PartReply(len(held), False)
        frame = zstd.compress(bytes(held), 1)
        self.put_pack(packs.header(digest, len(frame), size) + frame)
        return PartReply(size, True)

    def fetch(self, digests: Sequence[Digest]) -> Iterator[bytes]:
        """See `blobs.Fetch`."""
        self._count("fetch")
        for digest in digests:
            if digest in self._where:
                path, frame = self._where[digest]
                with open(path, "rb") as file:
                    file.seek(frame.start)
                    yield packs.header(digest, frame.length, frame.size) + file.read(frame.length)

    def data(self, digest: Digest) -> bytes:
        """The raw bytes of a stored blob."""
        path, frame = self._where[digest]
        return zstd.decompress(path.read_bytes()[frame.start : frame.start + frame.length])

    def _whole(self, digest: Digest) -> bool:
        if digest not in self._where:
            return False
        entries = tree.decode(self.data(digest)).entries
        return all(entry.digest in self._where for entry in entries if entry.digest)

    def _count(self, name: str) -> None:
        with self._lock:
            self.calls[name] = self.calls.get(name, 0) + 1
