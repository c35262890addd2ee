"""Where a job's files come from. `target` is a path in the job: absolute, `~/...`, or relative to
the working directory."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from moorage.ids import Digest


class Files(Struct, frozen=True, omit_defaults=True, tag="files", forbid_unknown_fields=True):
    """An uploaded file or directory, merged into the target: nothing there is ever deleted.

    The client fills in `tree` before it submits; a submitted spec always has it.
    """

    source: str
    target: str
    tree: Digest | None = None


class Repo(Struct, frozen=True, omit_defaults=True, tag="repo", forbid_unknown_fields=True):
    """A git repository: a local checkout with its local changes, or a URL cloned by the node.

    For a checkout the client fills in `tree` (the working tree as it stands), `pack` (a git pack
    with the checked-out commit), `head`, `branch` and `remote` (credentials removed).
    """

    target: str = "."
    source: str | None = None
    """Local checkout; exclusive with `url`."""
    url: str | None = None
    branch: str | None = None
    hash: str | None = None
    if_exists: Literal["error", "skip"] = "error"
    """What to do where the target has files already."""
    tree: Digest | None = None
    pack: Digest | None = None
    head: str | None = None
    remote: str | None = None


class HostPath(Struct, frozen=True, omit_defaults=True, tag="host", forbid_unknown_fields=True):
    """A directory or file of the node itself (dstack: instance volume), bound into the job."""

    source: str
    """An absolute path on the node; or a name without slashes, for a directory that the node's
    agent makes and keeps under that name."""
    target: str
    read_only: bool = False
    optional: bool = False
    """Skip it, instead of failing, where the node does not have it."""


BucketMode = Literal["mount", "cached", "copy"]
Preset = Literal["model-checkpoint-ro", "model-checkpoint-rw", "dataset-ro", "dataset-rw"]


class CacheOptions(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """SkyPilot's `config.mount_cached`; sizes in bytes, times in seconds, None: as the table of
    modes in `data/rclone` says."""

    transfers: int | None = None
    buffer_size: int | None = None
    cache_size: int | None = None
    cache_age: float | None = None
    read_ahead: int | None = None
    chunk_size: int | None = None
    chunk_streams: int | None = None
    write_back: float | None = None


class Bucket(Struct, frozen=True, omit_defaults=True, tag="bucket", forbid_unknown_fields=True):
    """A bucket, a prefix in one, or one object."""

    target: str
    store: str = ""
    """A declared store's name or a kind's; empty: the server's default store."""
    bucket: str = ""
    path: str = ""
    """An object or a prefix; no slash at either end. A template until the job is launched, as
    `target` is."""
    region: str = ""
    account: str = ""
    mode: BucketMode = "mount"
    read_only: bool = False
    managed: bool = False
    """Written as `name:`: the bucket is made where it is missing, and is listed as storage."""
    persistent: bool = True
    """False: a bucket that moorage made is deleted when the run has ended."""
    sources: list[str] = []
    """Local directories and files that the client uploads into the bucket before it submits."""
    listed: bool = False
    """`sources` was a list: each goes below its own name, not its content to the root."""
    preset: Preset | None = None
    cache: CacheOptions = CacheOptions()
    sync_back: bool = False
    """Copy mode: upload what the job changed when it has ended."""
    durable: Literal["background", "fsync"] = "background"
    """Cached mode: `fsync` returns after the upload."""
    flush_timeout: float | None = None
    """Seconds; None: the node's setting."""


Mount = Files | Repo | HostPath | Bucket
