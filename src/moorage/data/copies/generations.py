"""The node's copies of buckets: one immutable tree for each content, shared by all attempts.

    buckets/<digest>/content/          the tree, or the directory of the one file
    buckets/<digest>/generation.json   what it is of
    buckets/<digest>/listing           its entries
    buckets/.pool-<origin>/            objects on their way (`fetching.py`)
    buckets/.making-<digest>/          a tree that is not finished

Where a bucket changes, unchanged objects of the new generation are links to the files of an
earlier one. The longest unused go beyond a limit, and what a job uses never.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from moorage.data import scratch
from moorage.data.base import NotHere, SourceError
from moorage.data.copies import tree
from moorage.data.copies.listing import Content, Entry, Layout, LeftOut
from moorage.decoding import from_json, msgpack_decoder
from moorage.units import format_size

_SHARE = 4
"""Of the disk, one part in so many is for copies that no job uses."""
_PATIENCE = 86_400.0
"""Seconds for which objects of a generation that was never finished are kept."""
POOLED = "boot"
"""File of a pool: the start of the machine in which its objects were written."""
USED = "of"
"""Link, in what an attempt keeps of a mount, to the generation that it uses."""


class Origin(Struct, frozen=True):
    """What a copy is of."""

    store: str
    account: str
    region: str
    bucket: str
    path: str
    title: str
    """For people."""

    @property
    def words(self) -> tuple[str, ...]:
        """Those that make the bucket another."""
        return self.store, self.account, self.region, self.bucket

    def key(self, path: str, single: bool) -> str:
        """Of the object for a file of the copy; there is only one where it is `single`."""
        return self.path if single else f"{self.path}/{path}".lstrip("/")


class Kept(Struct, frozen=True):
    """`generation.json`. Bytes."""

    bucket: tuple[str, ...]
    title: str
    size: int
    left_out: list[LeftOut]
    single: bool
    boot: str


class Generation(NamedTuple):
    """One tree."""

    directory: Path
    kept: Kept

    @property
    def content(self) -> Path:
        """What the job sees, or the directory of the one file that it does."""
        return self.directory / "content"

    def entries(self) -> list[Entry]:
        """Its files."""
        return _decode_entries((self.directory / "listing").read_bytes())


_encode = msgspec.msgpack.Encoder().encode
_decode_entries = msgpack_decoder(list[Entry])


class Generations:
    """All in one directory; `holders` are where and how to look for directories whose links say
    what is in use. Several threads of one process may share it."""

    def __init__(
        self, directory: Path, holders: Sequence[tuple[Path, str]], limit: int | None = None
    ) -> None:
        """`limit`: bytes of copies that no job uses; None: a part of the disk."""
        self.directory = directory
        self._holders, self._limit = holders, limit
        self._lock = threading.RLock()
        self._linked: Counter[str] = Counter()
        self._coming: dict[Path, int] = {}

    def tidy(self) -> None:
        """Remove what an agent that died was about to make, and what a crash of the machine may
        have damaged; once, before anything else."""
        if not self.directory.exists():
            return
        boot = boot_id()
        for path in self.directory.glob(".making-*"):
            discard(path)
        for path in self.directory.glob(".pool-*"):
            with suppress(OSError):
                old = time.time() - path.stat().st_mtime > _PATIENCE
                if old or (path / POOLED).read_text() != boot:
                    discard(path)
        for path in self.directory.glob("*/generation.json"):
            kept = _read(path)
            if kept is None or (kept.boot != boot and not (path.parent / "synced").exists()):
                discard(path.parent)

    def pool(self, name: str) -> Path:
        """A directory for objects on their way; those of earlier attempts are in it."""
        path = self.directory / f".pool-{name}"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (path / POOLED).write_text(boot_id())
        os.utime(path)
        return path

    def use(self, digest: str, hold: Path) -> Generation | None:
        """The generation, for as long as the attempt's directory `hold` has its link; None where
        there is none."""
        with self._lock:
            directory = self.directory / digest
            kept = _read(directory / "generation.json")
            if kept is None:
                return None
            hold.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = hold / USED
            held.unlink(missing_ok=True)
            held.symlink_to(directory)
            with suppress(OSError):  # on a full disk the order of use suffers, not the job
                os.utime(directory / "generation.json")
            return Generation(directory, kept)

    @staticmethod
    def used(held: Path) -> Generation:
        """What a link USED stands for. FileNotFoundError."""
        directory = held.resolve(strict=True)
        kept = _read(directory / "generation.json")
        if kept is None:
            raise FileNotFoundError(directory)
        return Generation(directory, kept)

    def add(
        self, digest: str, origin: Origin, layout: Layout, files: dict[Content, str], hold: Path
    ) -> Generation:
        """Make a generation from `files`, which have all its content, and use it. OSError."""
        making = self.directory / f".making-{digest}"
        discard(making)
        making.mkdir(mode=0o700)
        sources = [files[entry.content] for entry in layout.files]
        tree.build(making / "content", layout, sources.__getitem__, tree.link)
        kept = Kept(
            origin.words, origin.title, layout.size, layout.left_out, layout.single, boot_id()
        )
        (making / "listing").write_bytes(_encode(layout.files))
        (making / "generation.json").write_bytes(msgspec.json.encode(kept))
        with self._lock:
            making.rename(self.directory / digest)
            made = self.use(digest, hold)
        assert made is not None
        threading.Thread(target=_sync, args=(made.directory,), daemon=True).start()
        return made

    @contextmanager
    def earlier(self, origin: Origin, layout: Layout) -> Iterator[dict[Content, str]]:
        """Files that earlier generations of the bucket have in common with the layout; they stay
        meanwhile."""
        missing = {entry.content for entry in layout.files}
        files: dict[Content, str] = {}
        held: list[str] = []
        try:
            for _, path, kept in self._all():
                if kept.bucket != origin.words or not missing:
                    continue
                with self._lock:
                    shared = _shared(Generation(path, kept), missing)
                    if shared:
                        self._linked[path.name] += 1
                        held.append(path.name)
                files |= shared
                missing -= shared.keys()
            yield files
        finally:
            with self._lock:
                self._linked.subtract(held)

    @contextmanager
    def room(self, title: str, size: int, pool: Path) -> Iterator[None]:
        """Space for so many bytes beside what others are fetching, each into a pool of its own.
        SourceError."""
        with self._lock:
            others = sum(self._coming.values())
            excess = size + others - self._free()
            if excess > 0:
                self._make_room(excess, pool)
            free = max(self._free() - others, 0)
            if size > free:
                raise NotHere(
                    f"{title} needs {format_size(size)}, and {format_size(free)} are free at "
                    f"{self.directory}; make room there, or use mode: mount"
                )
            self._coming[pool] = size
        try:
            yield
        finally:
            with self._lock:
                del self._coming[pool]

    def _free(self) -> int:
        return shutil.disk_usage(self.directory).free

    def _all(self) -> list[tuple[float, Path, Kept]]:
        """All generations, the latest used first."""
        found = []
        for path in self.directory.glob("*/generation.json"):
            with suppress(OSError):
                if (kept := _read(path)) is not None:
                    found.append((path.stat().st_mtime, path.parent, kept))
        return sorted(found, key=lambda one: -one[0])

    def evict(self) -> None:
        """Remove the longest unused beyond the limit."""
        limit = self._limit
        if limit is None:
            limit = shutil.disk_usage(self.directory).total // _SHARE
        with self._lock:
            sizes = self._sizes()
            gone = _take(sizes, sum(size for _, size, _ in sizes) - limit)
        for path in gone:
            discard(path)

    def _make_room(self, size: int, own: Path) -> None:
        """Remove what nobody uses, the longest unused first, until so many bytes are gone."""
        for pool in self.directory.glob(".pool-*"):
            if pool != own and pool not in self._coming:
                before = self._free()
                discard(pool)
                size -= self._free() - before
        for path in _take(self._sizes(), size):
            discard(path)

    def _sizes(self) -> list[tuple[Path, int, bool]]:
        """Generations with the bytes that are gone with each when those after it went before, and
        whether it is in use; those in use first, then the latest."""
        used = {
            os.path.realpath(link)
            for place, pattern in self._holders
            for link in place.glob(f"{pattern}/{USED}")
        }
        found = [
            (path, kept, os.path.realpath(path) in used or self._linked[path.name] > 0)
            for _, path, kept in self._all()
        ]
        found.sort(key=lambda one: not one[2])
        buckets = Counter(kept.bucket for _, kept, _ in found)
        seen: set[tuple[tuple[str, ...], Content]] = set()
        sizes = []
        for path, kept, busy in found:
            size = kept.size
            if buckets[kept.bucket] > 1:
                entries = Generation(path, kept).entries()
                own = {(kept.bucket, entry.content) for entry in entries} - seen
                seen |= own
                size = sum(content[2] for _, content in own)
            sizes.append((path, size, busy))
        return sizes


def _shared(generation: Generation, missing: set[Content]) -> dict[Content, str]:
    """Which of these it has, and where; none if it has just gone."""
    with suppress(FileNotFoundError):
        return {
            entry.content: f"{generation.content}/{entry.path}"
            for entry in generation.entries()
            if entry.content in missing
        }
    return {}


def _take(sizes: list[tuple[Path, int, bool]], excess: int) -> list[Path]:
    """Take generations out of the cache, from the end, until `excess` bytes are; they remain to be
    removed."""
    gone = []
    for path, size, used in reversed(sizes):
        if excess <= 0 or used:
            break
        excess -= size
        gone.append(path.rename(path.with_name(f".making-{path.name}.old")))
    return gone


def discard(path: Path) -> None:
    """Remove a tree as far as it goes; what stays, the next agent removes."""
    with suppress(SourceError):
        scratch.remove(path)


def boot_id() -> str:
    """Another after each start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _read(path: Path) -> Kept | None:
    try:
        return from_json(path.read_bytes(), Kept)
    except (OSError, msgspec.MsgspecError):
        return None


def _sync(directory: Path) -> None:
    """Note that all of it is on disk, which may take its time."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None).syncfs(descriptor) == 0:
                (directory / "synced").touch()
        finally:
            os.close(descriptor)
