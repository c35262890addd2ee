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


Mount = Files | Repo | HostPath
