"""Buckets in jobs, by the mode that the spec asks for: this module knows modes, never stores.

A mode is an object with `prepare`, `flush` and `release`, called in threads:

    fetch    prepare    once; what it returns is bound into the job
    flush    flush      after the process, however it ended; what the job wrote must be in the
                        bucket when it returns. Repeated by an agent that was started anew.
    clean    release    always, also after a failed `prepare`, and possibly twice

What a mode keeps of an attempt lies in `Use.directory`, which goes with the attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from moorage.data.base import Handle, Place, SourceError
from moorage.decoding import from_json
from moorage.protocol.mounts import MountHealth
from moorage.specs.mounts import Bucket, BucketMode, Mount
from moorage.specs.stores.record import Access

AccessOf = Callable[[str, str], Access]
"""By the name of a store and the key of an attempt that uses it. SourceError."""


@dataclass(frozen=True, slots=True)
class Use:
    """One bucket of one attempt."""

    bucket: Bucket
    place: Place
    number: int
    """Its position in the launch."""
    ask: AccessOf

    @property
    def directory(self) -> Path:
        """What is kept of it; made by who needs it (0700), removed with the attempt."""
        return self.place.directory / "mounts" / str(self.number)

    @property
    def target(self) -> Path:
        """Where the job sees it."""
        return self.place.target(self.bucket.target)

    def access(self) -> Access:
        """How to reach its store: asks the server. SourceError."""
        return self.ask(self.bucket.store, self.place.directory.name)


@dataclass(frozen=True, slots=True)
class Moved:
    """How far a flush is, in bytes; `total` may grow, and is 0 where it is not known yet."""

    done: int
    total: int


class NotFlushed(Exception):
    """What the job wrote is not all in the bucket. `files` are paths below the target; the text
    says why, in one line. `kept`: they are on the node, and can be uploaded later."""

    def __init__(self, reason: str, files: list[str], kept: bool = True) -> None:
        super().__init__(reason)
        self.files = files
        self.kept = kept


class Mode(Protocol):
    """One of `BucketMode` on this node."""

    def problems(self, bucket: Bucket) -> tuple[list[str], list[str]]:
        """Why it cannot be had here, and what is worth saying; changes nothing."""

    def prepare(self, use: Use) -> Handle:
        """Make it ready for the job. SourceError."""

    def flush(self, use: Use, tell: Callable[[Moved], None], patience: float) -> str:
        """Returns when all is in the bucket, with what is worth saying about it. `patience`:
        seconds without a single byte that moves, after which it gives up. NotFlushed; what was not
        uploaded stays where it is."""

    def release(self, use: Use) -> None:
        """Undo `prepare`, as far as removing `use.directory` does not. SourceError."""


@runtime_checkable
class Attended(Protocol):
    """A mode whose mounts may break while the job runs."""

    def attend(
        self, use: Use, tell: Callable[[MountHealth], None], doomed: Callable[[], bool]
    ) -> None:
        """Watch it from now until `release`, mend it where it breaks, and tell of that, on any
        thread. Once more by an agent that was started anew. `doomed`: those who use it were
        killed, and are not gone, because they wait for it: end that."""


@runtime_checkable
class Resumable(Protocol):
    """A mode that keeps what it could not upload: `release` moves it to `kept_place` and calls
    `note_kept` there."""

    def resume(
        self,
        bucket: Bucket,
        directory: Path,
        access: Access,
        tell: Callable[[Moved], None],
        patience: float,
    ) -> None:
        """Upload what `directory` keeps, and remove it. NotFlushed, SourceError: it stays."""


NOTE = "bucket"
"""In a directory of what was kept: the mount that it belongs to."""


def kept_place(unflushed: Path, key: str, number: int | str) -> Path:
    """Where an attempt's mount keeps what it could not upload; its parent exists then."""
    place = unflushed / key / str(number)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def note_kept(directory: Path, bucket: Bucket) -> None:
    """Write down whose it is, for `BucketSource.resume`."""
    (directory / NOTE).write_bytes(msgspec.json.encode(bucket))


class BucketSource:
    """The `Source` of buckets. `unflushed` is where modes keep what they could not upload."""

    def __init__(
        self, modes: Mapping[BucketMode, Mode], access: AccessOf, unflushed: Path
    ) -> None:
        self._modes = modes
        self._access = access
        self._unflushed = unflushed

    def problems(self, mount: Mount) -> tuple[list[str], list[str]]:
        """See `data.base.Source`."""
        assert isinstance(mount, Bucket)
        mode = self._modes.get(mount.mode)
        if mode is None:
            return [f"{mount.target}: this node cannot provide buckets by mode {mount.mode}"], []
        return mode.problems(mount)

    def prepare(self, mount: Mount, place: Place, number: int) -> Handle:
        """See `data.base.Source`."""
        use = self._use(mount, place, number)
        return self._mode(use.bucket).prepare(use)

    def attend(
        self,
        mount: Mount,
        place: Place,
        number: int,
        tell: Callable[[MountHealth], None],
        doomed: Callable[[], bool],
    ) -> None:
        """See `Attended.attend`."""
        use = self._use(mount, place, number)
        mode = self._mode(use.bucket)
        if isinstance(mode, Attended):
            mode.attend(use, tell, doomed)

    def flush(
        self,
        mount: Mount,
        place: Place,
        number: int,
        tell: Callable[[Moved], None],
        patience: float,
    ) -> str:
        """See `Mode.flush`."""
        use = self._use(mount, place, number)
        return self._mode(use.bucket).flush(use, tell, patience)

    def release(self, mount: Mount, place: Place, number: int) -> None:
        """See `data.base.Source`."""
        use = self._use(mount, place, number)
        self._mode(use.bucket).release(use)

    def resume(self, key: str, tell: Callable[[Moved], None], patience: float) -> None:
        """Upload what an attempt left. FileNotFoundError: nothing; NotFlushed, SourceError."""
        top = self._unflushed / key
        missing: list[str] = []
        why = ""
        for directory in sorted(top.iterdir()):
            bucket = from_json((directory / NOTE).read_bytes(), Bucket)
            mode = self._mode(bucket)
            if not isinstance(mode, Resumable):
                raise SourceError(f"{bucket.target}: mode {bucket.mode} cannot go on here")
            try:
                mode.resume(bucket, directory, self._access(bucket.store, key), tell, patience)
            except NotFlushed as error:
                why = f"{bucket.target}: {error}"
                missing += [f"{bucket.target}/{name}" for name in error.files]
        if why:
            raise NotFlushed(why, missing)
        top.rmdir()

    def _use(self, mount: Mount, place: Place, number: int) -> Use:
        assert isinstance(mount, Bucket)
        return Use(mount, place, number, self._access)

    def _mode(self, bucket: Bucket) -> Mode:
        mode = self._modes.get(bucket.mode)
        if mode is None:
            raise SourceError(
                f"{bucket.target}: this node cannot provide buckets by mode {bucket.mode}"
            )
        return mode
