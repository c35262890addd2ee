"""The node side of data: one `Source` for each kind of mount.

A source turns a mount into something that can be bound into a job. `prepare` is called once per
attempt, in the `fetch` phase, before the job holds a process; `release` in the `clean` phase,
always, also after a failed `prepare`, and possibly twice (a crash between): both are idempotent.
Nobody retries: an error ends the attempt with the phase and the message.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from moorage.specs.mounts import Mount


class SourceError(Exception):
    """A mount cannot be provided here; the text is one line for the user, with the fix."""


class NotHere(SourceError):
    """This node has not what a job needs; another may, and is tried."""


_OF_NODES = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENODEV,
        errno.ENOENT,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ENXIO,
        errno.EPERM,
        errno.EROFS,
        errno.ESTALE,
    }
)


def of_the_node(error: BaseException) -> bool:
    """Is it, or what caused it, this node's trouble, which others need not have?"""
    cause = error.__cause__
    if isinstance(error, NotHere) or (cause is not None and of_the_node(cause)):
        return True
    return isinstance(error, OSError) and error.errno in _OF_NODES


@dataclass(frozen=True, slots=True)
class Bind:
    """Make `source` (a path on the node) visible at `target` (an absolute path in the job)."""

    source: Path
    target: Path
    read_only: bool = False
    own: bool = False
    """It was made for the job alone: a container's user is to own it. Of a file, the directory
    that it lies in."""


def hides(target: Path) -> str:
    """Why an upload must not be bound at `target`: the job would lose what the node has there.
    Empty where nothing is lost; only directories are, a single file is replaced on purpose."""
    try:
        lost = target.is_dir() and any(target.iterdir())
    except OSError:
        lost = True
    if not lost:
        return ""
    return f"{target} exists on the node and its content would be hidden; name a place below it"


@dataclass(frozen=True, slots=True)
class Handle:
    """What `prepare` made."""

    binds: list[Bind] = field(default_factory=list)
    detail: str = ""
    """For the timeline: `src: 214 files, 3.1 MB, nothing fetched`."""


@dataclass(frozen=True, slots=True)
class Landing:
    """Where a path of the job lies on the node: `rest` below the directory `root`. What is below
    `root` may be a job's or a volume's, so links there are never followed."""

    root: Path
    rest: PurePosixPath
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attempt's things lie on the node, and where the job sees them."""

    directory: Path
    """The attempt's own directory, removed in `clean`."""
    work: Path
    """The working directory, on the node."""
    home: Path
    """The job user's home."""
    workdir: Path = Path("/workflow")
    """The working directory, as the job sees it: relative targets start here."""
    binds: tuple[Bind, ...] = ()
    """What is writable in the job so far: `work` and the volumes prepared before. A target below
    one of them is merged into it; any other becomes a bind of its own."""

    def target(self, text: str) -> Path:
        """The absolute path in the job that a mount's target means."""
        path = self.home / text[1:].lstrip("/") if text == "~" or text[:2] == "~/" else Path(text)
        return Path(os.path.normpath(self.workdir / path))

    def landing(self, target: Path) -> Landing | None:
        """Where `target` (absolute, in the job) lies; None when it is below no bind."""
        binds = self.binds or (Bind(self.work, self.workdir),)
        above = [bind for bind in reversed(binds) if target.is_relative_to(bind.target)]
        if not above:
            return None
        bind = max(above, key=lambda bind: len(bind.target.parts))
        return Landing(bind.source, PurePosixPath(target.relative_to(bind.target)), bind.read_only)


class Source(Protocol):
    """Provides one kind of mount."""

    def problems(self, mount: Mount) -> tuple[list[str], list[str]]:
        """What would go wrong with this mount here, and what is worth saying; changes nothing."""

    def prepare(self, mount: Mount, place: Place, number: int) -> Handle:
        """Fetch or create what the mount needs; `number` is its position in the launch.
        SourceError where it cannot be had."""

    def release(self, mount: Mount, place: Place, number: int) -> None:
        """Undo `prepare`, as far as removing `place.directory` does not."""
