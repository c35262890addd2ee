"""A bucket's content of now as a generation on the node: found there, or fetched once.

Attempts that want the same wait for each other; one of them lists and fetches. What an agent that
died had fetched is in the pool still, by digest of key and version, so the next attempt goes on
there. An object that changes under way has the bucket listed again; what was fetched stays good.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from moorage.data.base import SourceError
from moorage.data.copies import crew, listing, tree
from moorage.data.copies.generations import POOLED, Generation, Generations, Origin, discard
from moorage.data.copies.listing import Content, Entry, Layout
from moorage.data.copies.shelf import PART, ObjectChanged, Shelf
from moorage.data.objects.bucket import Found
from moorage.data.stopping import breaking
from moorage.units import format_progress, format_size

_ROUNDS = 10
"""Listings of a bucket that is written while it is fetched."""
_TOLD = 1.0
"""Seconds between two words about the progress."""

Tell = Callable[[str], None]


class Held(NamedTuple):
    """What an attempt got."""

    generation: Generation
    detail: str
    """For the timeline."""
    nothing: bool
    """There is nothing at that address."""


class Fetcher:
    """Fetches into `generations`. Several threads of one process may share it."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._change = threading.Condition()
        self._busy: set[str] = set()
        self._waiting: Counter[str] = Counter()
        self._listed: dict[str, tuple[float, Layout]] = {}

    def fetch(self, shelf: Shelf, origin: Origin, hold: Path, tell: Tell) -> Held:
        """The content of the bucket as it is now, held by the directory `hold` of an attempt.
        `tell` is given words about the progress. SourceError, OSError."""
        asked = time.monotonic()
        name = Layout([], [], []).digest(*origin.words, origin.path)
        with self._alone(name):
            for _ in range(_ROUNDS):
                layout = self._layout(shelf, origin, name, asked)
                digest = layout.digest(*origin.words, origin.path)
                known, fetched = self._generations.use(digest, hold), 0
                try:
                    if known is None:
                        known, fetched = self._make(shelf, origin, layout, digest, hold, tell)
                except ObjectChanged:
                    asked = time.monotonic()
                    continue
                return Held(known, _detail(layout, fetched), layout.nothing)
        raise SourceError(f"{origin.title} changes faster than it can be copied; use mode: mount")

    def _layout(self, shelf: Shelf, origin: Origin, name: str, asked: float) -> Layout:
        """The listing; attempts that waited for each other share one that began after they
        asked."""
        began, layout = self._listed.get(name, (0.0, None))
        if layout is not None and began >= asked:
            return layout
        began = time.monotonic()
        layout = crew.aside(lambda: _listed(shelf, origin.path))
        self._listed[name] = (began, layout)
        return layout

    def _make(
        self, shelf: Shelf, origin: Origin, layout: Layout, digest: str, hold: Path, tell: Tell
    ) -> tuple[Generation, int]:
        """A new generation, and the bytes that were fetched for it."""
        generations = self._generations
        pool = generations.pool(Layout([], [], []).digest(*origin.words, origin.path))
        with generations.earlier(origin, layout) as files:
            wanted = _missing(layout, files, pool)
            size = sum(found.size for found, _ in wanted)
            with generations.room(origin.title, size, pool):
                progress = _Progress(size, tell)
                none = set(shelf.fetch(wanted, progress.arrived) if wanted else ())
            for found, path in wanted:
                if found.key not in none:
                    tree.finish(str(path), found.modified)
            layout = listing.without(layout, none) if none else layout
            made = generations.add(digest, origin, layout, files, hold)
        discard(pool)
        generations.evict()
        return made, size

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """One at a time for each origin; the others wait, and then find what was fetched.
        SourceError: stopped meanwhile."""
        stopped = threading.Event()

        def end() -> None:
            stopped.set()
            with self._change:
                self._change.notify_all()

        with breaking(end), self._change:
            self._waiting[name] += 1
            try:
                while name in self._busy and not stopped.is_set():
                    self._change.wait()
            finally:
                self._waiting[name] -= 1
            if stopped.is_set():
                raise SourceError("stopped")
            self._busy.add(name)
        try:
            yield
        finally:
            with self._change:
                self._busy.discard(name)
                if self._waiting[name] <= 0:
                    del self._waiting[name]
                    self._listed.pop(name, None)
                self._change.notify_all()


class _Progress:
    """Says now and then how much has come."""

    def __init__(self, total: int, tell: Tell) -> None:
        self._total, self._tell = total, tell
        self._done, self._told = 0, 0.0
        self._lock = threading.Lock()

    def arrived(self, size: int) -> None:
        with self._lock:
            self._done += size
            now = time.monotonic()
            if now - self._told < _TOLD:
                return
            self._told = now
        self._tell(f"fetching {format_progress(self._done, self._total)}")


def _listed(shelf: Shelf, path: str) -> Layout:
    found: list[Found] = []
    for part in shelf.listing(path):
        found += part
    if path and not found and (one := shelf.find(path)) is not None:
        return listing.single(one)
    return listing.lay_out(found, path)


def _missing(layout: Layout, files: dict[Content, str], pool: Path) -> list[tuple[Found, Path]]:
    """Complete `files` by those in the pool or on their way there: the latter. What else is in the
    pool is of no use any more."""
    here = {entry.name for entry in os.scandir(pool)}
    wanted: list[tuple[Found, Path]] = []
    keep = {POOLED}
    for entry in layout.files:
        if entry.content in files:
            continue
        name = _pooled(entry)
        keep.add(name)
        files[entry.content] = f"{pool}/{name}"
        if name not in here:
            wanted.append((entry.found, pool / name))
    tree.remove_files(f"{pool}/{name}" for name in here - keep if not name.endswith(PART))
    return wanted


def _pooled(entry: Entry) -> str:
    return blake3("\0".join((entry.key, entry.version, str(entry.size))).encode()).hexdigest()


def _detail(layout: Layout, fetched: int) -> str:
    count = len(layout.files)
    words = [f"{count} {'file' if count == 1 else 'files'}", format_size(layout.size)]
    words.append(f"{format_size(fetched)} fetched" if fetched else "nothing fetched")
    said = listing.describe(layout.left_out)
    return ", ".join(words) + (f"; {said}" if said else "")
