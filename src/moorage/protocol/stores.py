"""Bodies of the HTTP API about object stores and the buckets in them (`/v1/stores`,
`/v1/storages`). How to reach a store is an `Access` (`specs/stores/record.py`).

Times are Unix seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from moorage.protocol.api import RunRef

DEFAULT = "default"
"""Stands for the default store in paths, as an empty name does in specs."""
EMBEDDED = "moorage"
"""The store that the server itself runs."""

StoreName = Annotated[str, Meta(max_length=256, description="A store's name")]
Text = Annotated[str, Meta(max_length=2048)]
Secret = Annotated[str, Meta(max_length=65_536)]

Credentials = Literal["stored", "role", "server", "node", "none", "embedded"]
"""With what it is reached: `stored` here, a `role` that is taken on for each node, those that the
`server` finds, those of each `node`, `none` (unsigned requests), or the embedded store's own."""


class StoreRequest(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Declares a store, or declares it anew. `secrets` are as in `Access`."""

    name: StoreName
    kind: Text
    endpoint: Text = ""
    region: Text = ""
    account: Text = ""
    path_style: bool = False
    anonymous: bool = False
    role: Text = ""
    secrets: dict[str, Secret] = {}

    def __repr__(self) -> str:
        return f"StoreRequest({self.name}, {self.kind}, secrets hidden)"


class StoreView(Struct, frozen=True, omit_defaults=True):
    """A store that specs can name, never with its secrets."""

    name: str
    kind: str
    credentials: Credentials
    declared: bool
    default: bool = False
    """Where `name:` without `store:` goes."""
    endpoint: str = ""
    region: str = ""
    account: str = ""
    path_style: bool = False
    role: str = ""
    user: str = ""
    created_at: float | None = None
    storages: int = 0
    """Buckets in it that have a name here."""
    problem: str = ""
    """Why it cannot be used: its secrets cannot be read."""
    default_was: str = ""
    """In the answer to a change: the default store until then, where that is another now."""
    default_now: str = ""
    """The default store since then."""


class StorePage(Struct, frozen=True):
    stores: list[StoreView]


class StoreCheck(Struct, frozen=True, omit_defaults=True):
    """What one look at a store found. `problem` empty: it answers, and takes the credentials."""

    name: str
    seconds: float
    problem: str = ""
    fix: str = ""
    buckets: int | None = None
    """None where the credentials do not allow to list them."""


StorageStateName = Literal["making", "ready", "missing", "deleting", "foreign"]
"""`foreign`: it is there, and moorage did not make it."""


class StorageRequest(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A bucket under a name: made where it is missing. `adopt`: it is there, and stays another's:
    it is never deleted."""

    name: Text
    store: Text = ""
    adopt: bool = False
    persistent: bool = True


class Unfinished(Struct, frozen=True, omit_defaults=True):
    """Uploads in parts that have not been finished, or not yet. They take room that no count of
    objects shows."""

    uploads: int
    oldest: float
    """When it was begun."""
    bytes: int | None = None
    """Of the parts that came; None: they were not counted."""


class StorageView(Struct, frozen=True, omit_defaults=True):
    """A bucket that has a name, or, of kind `foreign` in a list, one without."""

    name: str
    store: str
    bucket: str
    uri: str
    state: StorageStateName
    made: bool = False
    """By moorage, which may delete it."""
    persistent: bool = True
    message: str = ""
    made_by: int | None = None
    """The number of the run it was made for."""
    user: str = ""
    created_at: float | None = None
    last_used: float | None = None
    used_by: list[RunRef] = []
    """Runs that have not ended."""
    unflushed: list[str] = []
    """Attempts that left something on their node (`moorage storage flush`)."""
    objects: int | None = None
    bytes: int | None = None
    looked_at: float | None = None
    """When objects were counted."""
    unfinished: Unfinished | None = None
    """None: there are none, the store does not tell, or it was not asked."""


class StoragePage(Struct, frozen=True, omit_defaults=True):
    """`problems`: stores that could not be looked at, and why."""

    storages: list[StorageView]
    problems: list[str] = []


class StorageGone(Struct, frozen=True, omit_defaults=True):
    """What became of a deletion. `forgotten`: the bucket stays, for the reason in `message`;
    `deleting`: it is not done yet, or does not work for that reason, and is tried again."""

    name: str
    state: Literal["deleted", "forgotten", "deleting"]
    message: str = ""


class Flushing(Struct, frozen=True, omit_defaults=True):
    """An attempt that left something on its node, and what became of it."""

    attempt: str
    node: str
    state: Literal["asked", "away", "done", "nothing", "failed"]
    """`asked`: it goes on; `away`: its node is not connected; `nothing`: nothing was left."""
    message: str = ""


class FlushReply(Struct, frozen=True):
    """Empty where no attempt left anything."""

    attempts: list[Flushing]


class DataPlan(Struct, frozen=True, omit_defaults=True):
    """Where a mount's data is, as far as one request tells."""

    target: str
    uri: str
    mode: str
    store: str
    will_make: bool = False
    """The bucket is made at submit."""
    objects: int | None = None
    """None: it was not looked at, or there are more than one request tells."""
    bytes: int | None = None
    more: bool = False
    """There is more than `objects` and `bytes` say."""
