"""The node side of data: one `Source` for each kind of mount.

A source turns a mount into something that can be bound into a job. `prepare` is called once per
attempt, in the `fetch` phase, before the job holds a process; `release` in the `clean` phase,
always, also after a failed `prepare`, and possibly twice (a crash between): both are idempotent.
Nobody retries: an error ends the attempt with the phase and the message.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from moorage.specs.mounts import Mount


class SourceError(Exception):
    """A mount cannot be provided here; the text is one line for the user, with the fix."""


@dataclass(frozen=True, slots=True)
class Bind:
    """Make `source` (a path on the node) visible at `target` (an absolute path in the job)."""

    source: Path
    target: Path
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Merge:
    """Copy the tree at `source` into `target` file by file before the process starts; `target` is
    inside a volume or the working directory, and nothing there is deleted."""

    source: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Handle:
    """What `prepare` made."""

    binds: list[Bind] = field(default_factory=list)
    detail: str = ""
    """For the timeline: `214 files, 3.1 MB, 0 B fetched`."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attempt's things lie on the node."""

    directory: Path
    """The attempt's own directory, removed in `clean`."""
    work: Path
    """The working directory, on the node."""
    home: Path
    """The job user's home."""


class Source(Protocol):
    """Provides one kind of mount."""

    def problems(self, mount: Mount) -> tuple[list[str], list[str]]:
        """What would go wrong with this mount here, and what is worth saying; changes nothing."""

    def prepare(self, mount: Mount, place: Place, number: int) -> Handle:
        """Fetch or create what the mount needs; `number` is its position in the launch.
        SourceError where it cannot be had."""

    def release(self, mount: Mount, place: Place, number: int) -> None:
        """Undo `prepare`, as far as removing `place.directory` does not."""
