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
from importlib.util import find_spec
from pathlib import Path

import msgspec
from msgspec import Struct

from moorage.data import scratch, telling
from moorage.data.base import Bind, Handle, SourceError
from moorage.data.buckets import Moved, NotFlushed, Use, kept_place, note_kept
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
from moorage.data.parts import awaited
from moorage.decoding import from_json
from moorage.specs.mounts import Bucket
from moorage.specs.stores.record import Access

_RECORD, _JOURNAL, _FLUSHED = "copy.json", "uploaded", "flushed"


class Record(Struct, frozen=True):
    """`copy.json`: enough to upload changes without the launch."""

    bucket: Bucket
    origin: Origin
    single: bool
    name: str
    """The attempt's."""


OpenShelf = Callable[[Callable[[], Access], Bucket, float], tuple[Shelf, str]]
"""A bucket, and the address for people of what is used of it. How it is reached, asked again where
its keys end; seconds for which each request is tried again. SourceError."""
_FETCHING, _UPLOADING = 120.0, 10.0
"""Such seconds; uploads are repeated as a whole."""


def open_shelf(ask: Callable[[], Access], bucket: Bucket, patience: float) -> tuple[Shelf, str]:
    """Through obstore."""

    def access() -> Access:
        found = ask()
        return msgspec.structs.replace(
            found, region=bucket.region or found.region, account=bucket.account or found.account
        )

    try:
        opened = open_bucket(access(), bucket.bucket, patience=patience, renew=access)
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
        if find_spec("obstore") is None and not awaited():
            why = "the package obstore is not installed; pip install 'moorage[storage]'"
            return [f"{bucket.target}: {why}"], []
        return [], []

    def prepare(self, use: Use) -> Handle:
        """See `buckets.Mode`."""
        bucket = use.bucket
        try:
            return self._prepare(use)
        except SourceError as error:
            raise type(error)(f"{bucket.target}: {error}") from None

    def _prepare(self, use: Use) -> Handle:
        bucket = use.bucket
        shelf, title = self._shelf(use.access, bucket, _FETCHING)
        origin = Origin(
            bucket.store, bucket.account, bucket.region, bucket.bucket, bucket.path, title
        )
        held = self._fetcher.fetch(shelf, origin, use.directory, telling.tell)
        if held.nothing and bucket.path and not bucket.sync_back:
            raise SourceError(f"there is nothing at {title}; correct the path")
        generation, detail = held.generation, f"{bucket.target}: {held.detail}"
        if bucket.read_only:
            return Handle([_bind(use, generation.content, generation)], detail)
        record = Record(bucket, origin, generation.kept.single, use.place.directory.name)
        (use.directory / _RECORD).write_bytes(msgspec.json.encode(record))
        view = overlay.make(use.directory, generation, title)
        return Handle([_bind(use, view.root, generation)], detail)

    def flush(self, use: Use, tell: Callable[[Moved], None], patience: float) -> str:
        """See `buckets.Mode`."""
        if use.bucket.read_only or not use.bucket.sync_back:
            return ""
        return self._upload(use.directory, use.access, tell, patience)

    def resume(
        self,
        bucket: Bucket,
        directory: Path,
        access: Access,
        tell: Callable[[Moved], None],
        patience: float,
    ) -> None:
        """See `buckets.Resumable`."""
        try:
            self._upload(directory, lambda: access, tell, patience)
        finally:
            overlay.leave(directory)
        scratch.remove(directory)

    def release(self, use: Use) -> None:
        """See `buckets.Mode`."""
        self.put_away(use.directory, use.place.directory.name)

    def put_away(self, directory: Path, key: str) -> None:
        """Unmount it, knowing no more than its directory; what is not in the bucket is kept.
        SourceError, OSError."""
        record = _record(directory)
        kept = record is not None and record.bucket.sync_back and _unfinished(directory)
        overlay.leave(directory)
        if record is not None and kept:
            note_kept(directory, record.bucket)
            directory.rename(kept_place(self._unflushed, key, directory.name))

    def _upload(
        self,
        directory: Path,
        access: Callable[[], Access],
        tell: Callable[[Moved], None],
        patience: float,
    ) -> str:
        """What is worth saying about it."""
        found = None if (directory / _FLUSHED).exists() else _look(directory)
        if found is None:
            return ""
        view, record, made = found
        words = _said(made)
        if made.files:
            key_of = partial(record.origin.key, single=record.single)
            try:
                shelf, _ = self._shelf(access, record.bucket, _UPLOADING)
            except SourceError as error:
                raise NotFlushed(str(error), [change.path for change in made.files]) from None
            uploads = SyncBack(shelf, view.root, directory / _JOURNAL, record.name, key_of, tell)
            uploads.run(made.files, patience)
            words += uploads.notes()
        (directory / _FLUSHED).touch()
        return "; ".join(words)


def _bind(use: Use, root: Path, generation: Generation) -> Bind:
    if generation.kept.single:
        [entry] = generation.entries()
        root = root / entry.path
    read_only = use.bucket.read_only
    return Bind(root, use.target, read_only, own=not read_only)


def _look(directory: Path) -> tuple[View, Record, Changes] | None:
    """What a job made of its copy; None where it never had one. SourceError."""
    if (record := _record(directory)) is None:
        return None
    generation = Generations.used(directory / USED)
    view = overlay.again(directory, generation)
    return None if view is None else (view, record, changes.find(view, generation))


def _record(directory: Path) -> Record | None:
    with suppress(FileNotFoundError):
        return from_json((directory / _RECORD).read_bytes(), Record)
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
