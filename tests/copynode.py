"""For tests of mode COPY: a bucket in memory, and a node that copies it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from moorage.data.base import Place
from moorage.data.buckets import Use
from moorage.data.copies.mode import Copied, open_shelf
from moorage.data.copies.shelf import Arrived, Conflict, ObjectChanged, Shelf
from moorage.data.objects.bucket import Found
from moorage.specs.mounts import Bucket
from moorage.specs.stores.record import Access


class MemoryShelf:
    """Objects in a dictionary; etags count. `gate`, where it is set, holds every fetch."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, Found]] = {}
        self.fetched: list[str] = []
        self.uploaded: list[str] = []
        self.listings = 0
        self.gate: threading.Event | None = None
        self.fetching = threading.Event()
        self._count = 0

    def write(self, key: str, content: bytes = b"", modified: float = 1_700_000_000.5) -> None:
        self._count += 1
        found = Found(key, len(content), modified, f'"{self._count}"')
        self.objects[key] = content, found

    def read(self, key: str) -> bytes:
        return self.objects[key][0]

    def listing(self, prefix: str) -> Iterator[Sequence[Found]]:
        self.listings += 1
        below = f"{prefix}/" if prefix else ""
        yield [found for key, (_, found) in self.objects.items() if key.startswith(below)]

    def find(self, key: str) -> Found | None:
        return self.objects[key][1] if key in self.objects else None

    def fetch(self, wanted: Sequence[tuple[Found, Path]], arrived: Arrived) -> list[str]:
        self.fetching.set()
        for found, path in wanted:
            if self.gate is not None:
                assert self.gate.wait(30)
            if self.find(found.key) != found:
                raise ObjectChanged(found.key)
            self.fetched.append(found.key)
            path.write_bytes(self.read(found.key))
            arrived(found.size)
        return []

    def same(self, entry: Found, path: Path) -> bool:
        return self.read(entry.key) == path.read_bytes()

    def put(self, key: str, path: Path, size: int, base: Found | None, arrived: Arrived) -> None:
        if self.find(key) != base:
            raise Conflict(key)
        self.write(key, path.read_bytes())
        self.uploaded.append(key)
        arrived(size)


class CopyNode:
    """A node with the mode, and attempts on it; `access`: to a real store."""

    def __init__(self, home: Path, access: Access | None = None) -> None:
        self.home, self.access = home, access
        self.shelf = MemoryShelf()
        self.mode = self.restarted()

    def restarted(self, limit: int | None = None) -> Copied:
        """As a new agent would have it."""
        self.mode = Copied(self.home, self.home / "unflushed", limit=limit, shelf=self.open)
        self.mode.tidy()
        return self.mode

    def open(
        self, ask: Callable[[], Access], bucket: Bucket, patience: float
    ) -> tuple[Shelf, str]:
        if self.access is not None:
            return open_shelf(ask, bucket, patience)
        return self.shelf, f"s3://{bucket.bucket}/{bucket.path}".rstrip("/")

    def use(self, bucket: Bucket, key: str = "7.1.0", number: int = 0) -> Use:
        directory = self.home / "attempts" / key
        (directory / "work").mkdir(parents=True, exist_ok=True)
        place = Place(directory, directory / "work", Path("/home/ada"))
        return Use(bucket, place, number, lambda _store, _key: self.access or Access("s3"))

    def generations(self) -> list[Path]:
        return [path.parent for path in self.home.glob("cache/buckets/*/generation.json")]
