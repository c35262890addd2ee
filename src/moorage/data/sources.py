"""The sources of a node, by the kind of mount that they provide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moorage.data.base import Source
from moorage.data.blobs import BlobCache, Fetch
from moorage.data.files import FilesSource
from moorage.data.repos import RepoSource
from moorage.data.volumes import HostPathSource
from moorage.specs.mounts import Files, HostPath, Mount, Repo

_ORDER: tuple[type[Mount], ...] = (HostPath, Repo, Files)
"""Volumes first, because files and repositories may land in one; a repository before files,
because it wants its target empty."""


class Sources:
    """All sources of this node; `home` is the agent's directory: blobs and repositories are kept
    in its `cache`, volumes without a path in its `volumes`."""

    def __init__(self, home: Path, fetch: Fetch, *, limit: int | None = None) -> None:
        cache = home / "cache"
        blobs = BlobCache(cache / "blobs", fetch, limit=limit)
        self._by_kind: dict[type[Mount], Source] = {
            HostPath: HostPathSource(home / "volumes"),
            Repo: RepoSource(blobs, cache / "repos"),
            Files: FilesSource(blobs),
        }

    def of(self, mount: Mount) -> Source:
        """The source that provides this mount."""
        return self._by_kind[type(mount)]


def in_order(mounts: Sequence[Mount]) -> list[tuple[int, Mount]]:
    """The order in which to prepare mounts, each with its position in the launch; after each
    volume its bind belongs into the `binds` of the `Place` that later ones get."""
    return sorted(enumerate(mounts), key=lambda item: _ORDER.index(type(item[1])))
