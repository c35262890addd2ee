"""Mode `copy` of buckets.

    mounts/<n>/of          link to the generation that is used
    mounts/<n>/copy.json   what it is of, and by which name changes are told apart
    mounts/<n>/uploaded    what of the changes is in the bucket
    mounts/<n>/flushed     all of it is

beside what `overlay.py` makes. What could not be uploaded is kept, whole, in another place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from moorage.data import telling
from moorage.data.base import Bind, Handle, SourceError
from moorage.data.buckets import Moved, NotFlushed, Use
from moorage.data.copies import changes, listing, overlay
from moorage.data.copies.changes import Changes
from moorage.data.copies.fetching import Fetcher
from moorage.data.copies.generations import USED, Generation, Generations, Origin
from moorage.data.copies.objectshelf import ObjectShelf
from moorage.data.copies.overlay import View
from moorage.data.copies.shelf import Shelf
from moorage.data.copies.syncback import SyncBack
from moorage.data.objects.bucket import open_bucket
from moorage.data.objects.errors import StoreProblem
from moorage.specs.mounts import Bucket
from moorage.specs.stores.record import Access

_RECORD, _JOURNAL, _FLUSHED = "copy.json", "uploaded", "flushed"


class Record(Struct, frozen=True):
    """`copy.json`: enough to upload changes without the launch."""

    origin: Origin
    single: bool
    name: str
    """The attempt's."""


OpenShelf = Callable[[Access, Bucket], tuple[Shelf, str]]
"""A bucket, and the address for people of what is used of it. SourceError."""


def open_shelf(access: Access, bucket: Bucket) -> tuple[Shelf, str]:
    """Through obstore."""
    access = msgspec.structs.replace(
        access, region=bucket.region or access.region, account=bucket.account or access.account
    )
    try:
        opened = open_bucket(access, bucket.bucket)
    except StoreProblem as error:
        raise SourceError(str(error)) from None
    return ObjectShelf(opened), opened.at(bucket.path)


class Copied:
    """See `buckets.Mode`. `home` is the agent's directory; `unflushed`, on its file system, keeps
    what could not be uploaded."""

    def __init__(
        self,
        home: Path,
        unflushed: Path,
        *,
        limit: int | None = None,
        shelf: OpenShelf = open_shelf,
    ) -> None:
        holders = (home / "attempts", "*/mounts/*"), (unflushed, "*/*")
        self._generations = Generations(home / "cache" / "buckets", holders, limit)
        self._fetcher = Fetcher(self._generations)
        self._unflushed, self._shelf = unflushed, shelf

    def tidy(self) -> None:
        """Once, before anything else: see `Generations.tidy`."""
        self._generations.tidy()

    def problems(self, bucket: Bucket) -> tuple[list[str], list[str]]:
        """See `buckets.Mode`."""
        return [], []

    def prepare(self, use: Use) -> Handle:
        """See `buckets.Mode`."""
        bucket = use.bucket
        try:
            return self._prepare(use)
        except SourceError as error:
            raise SourceError(f"{bucket.target}: {error}") from None

    def _prepare(self, use: Use) -> Handle:
        bucket = use.bucket
        shelf, title = self._shelf(use.access(), bucket)
        origin = Origin(
            bucket.store, bucket.account, bucket.region, bucket.bucket, bucket.path, title
        )
        held = self._fetcher.fetch(shelf, origin, use.directory, telling.tell)
        if held.nothing and bucket.path and not bucket.sync_back:
            raise SourceError(f"there is nothing at {title}; correct the path")
        generation, detail = held.generation, f"{bucket.target}: {held.detail}"
        if bucket.read_only:
            return Handle([_bind(use, generation.content, generation)], detail)
        record = Record(origin, generation.kept.single, use.place.directory.name)
        (use.directory / _RECORD).write_bytes(msgspec.json.encode(record))
        view = overlay.make(use.directory, generation, title)
        return Handle([_bind(use, view.root, generation)], detail)

    def flush(self, use: Use, tell: Callable[[Moved], None], patience: float) -> str:
        """See `buckets.Mode`. What is worth saying about it."""
        if use.bucket.read_only or not use.bucket.sync_back:
            return ""
        return self._upload(use.directory, lambda: self._open(use), tell, patience)

    def resume(
        self, directory: Path, use: Use, tell: Callable[[Moved], None], patience: float
    ) -> str:
        """Upload what was kept in `directory` of an attempt's mount that is gone. NotFlushed."""
        try:
            return self._upload(directory, lambda: self._open(use), tell, patience)
        finally:
            overlay.leave(directory)

    def release(self, use: Use) -> None:
        """See `buckets.Mode`."""
        directory, bucket = use.directory, use.bucket
        kept = bucket.sync_back and not bucket.read_only and _unfinished(directory)
        overlay.leave(directory)
        if kept:
            place = self._unflushed / use.place.directory.name / directory.name
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.rename(place)

    def _open(self, use: Use) -> Shelf:
        try:
            return self._shelf(use.access(), use.bucket)[0]
        except SourceError as error:
            raise NotFlushed(str(error), []) from None

    def _upload(
        self,
        directory: Path,
        shelf: Callable[[], Shelf],
        tell: Callable[[Moved], None],
        patience: float,
    ) -> str:
        found = _look(directory)
        if found is None or (directory / _FLUSHED).exists():
            return ""
        view, record, made = found
        notes = []
        if made.files:
            key_of = partial(record.origin.key, single=record.single)
            uploads = SyncBack(shelf(), view.root, directory / _JOURNAL, record.name, key_of, tell)
            uploads.run(made.files, patience)
            notes = uploads.notes()
        (directory / _FLUSHED).touch()
        return "; ".join([*_said(made), *notes])


def _bind(use: Use, root: Path, generation: Generation) -> Bind:
    if not generation.kept.single:
        return Bind(root, use.target, use.bucket.read_only)
    [entry] = generation.entries()
    return Bind(root / entry.path, use.target, use.bucket.read_only)


def _look(directory: Path) -> tuple[View, Record, Changes] | None:
    """What a job made of its copy; None where it never had one. SourceError."""
    with suppress(FileNotFoundError):
        record = msgspec.json.decode((directory / _RECORD).read_bytes(), type=Record)
        generation = Generations.used(directory / USED)
        view = overlay.again(directory, generation)
        if view is not None:
            return view, record, changes.find(view, generation)
    return None


def _unfinished(directory: Path) -> bool:
    """Whether something that the job wrote is here and nowhere else."""
    if (directory / _FLUSHED).exists():
        return False
    found = _look(directory)
    return found is not None and bool(found[2].files)


def _said(made: Changes) -> list[str]:
    count = len(made.files)
    words = [f"{count} {'file' if count == 1 else 'files'} uploaded"] if count else []
    if made.removed:
        noun = "object stays" if made.removed == 1 else "objects stay"
        words.append(f"{made.removed} {noun} though the job removed the file")
    if made.left_out:
        words.append(listing.describe(made.left_out, "file"))
    return words
