"""Declared object stores, and the buckets in them that have a name.

    making -> ready -> deleting       and the record is gone after that
    ready <-> missing                 somebody deleted it; the next submit makes it again

Both ends of `making` and `deleting` are durable: whoever finds a bucket in between goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from moorage.ids import RunId
from moorage.specs.mounts import Bucket, Mount

StorageState = Literal["making", "ready", "missing", "deleting"]
Place = tuple[str, str]
"""A store, by the name that specs use, and a bucket in it."""


@dataclass(slots=True)
class LiveStore:
    """A store that was declared under a name."""

    name: str
    kind: str
    user: str
    created_at: float
    endpoint: str = ""
    region: str = ""
    account: str = ""
    path_style: bool = False
    anonymous: bool = False
    role: str = ""
    secrets: str = field(default="", repr=False)
    """Sealed; empty where there are none."""


@dataclass(slots=True)
class LiveStorage:
    """A bucket that moorage knows by a name."""

    name: str
    store: str
    bucket: str
    made: bool
    """By moorage, which may delete it."""
    persistent: bool
    state: StorageState
    user: str
    created_at: float
    last_used: float
    message: str = ""
    """Why it is not what it should be."""
    born: str = ""
    """When it was made, as the store tells it: another time is another bucket."""
    made_by: RunId | None = None
    unflushed: set[str] = field(default_factory=set)
    """Keys of attempts that left something on their node."""
    objects: int | None = None
    bytes: int | None = None
    looked_at: float | None = None
    held_until: float = field(default=0.0, compare=False)
    """A submit is under way that relies on it, and ends before this time."""

    @property
    def place(self) -> Place:
        """Where it is."""
        return (self.store, self.bucket)


def buckets_of(mounts: Sequence[Mount]) -> Iterator[Bucket]:
    """Those among mounts."""
    return (mount for mount in mounts if isinstance(mount, Bucket))


def places_of(mounts: Sequence[Mount]) -> set[Place]:
    """The buckets that mounts name, each once."""
    return {(mount.store, mount.bucket) for mount in buckets_of(mounts)}
