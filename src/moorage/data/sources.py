"""The sources of a node, by the kind of mount that they provide."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from moorage.data.base import Source, SourceError
from moorage.data.blobs import BlobCache, Fetch
from moorage.data.buckets import AccessOf, BucketSource
from moorage.data.copies.mode import Copied
from moorage.data.files import FilesSource
from moorage.data.rclone.modes import Mounted
from moorage.data.repos import RepoSource
from moorage.data.volumes import HostPathSource
from moorage.specs.mounts import Bucket, Files, HostPath, Mount, Repo
from moorage.specs.stores.record import Access

log = logging.getLogger("moorage.agent")

_ORDER: tuple[type[Mount], ...] = (HostPath, Repo, Files, Bucket)
"""Volumes first, because files and repositories may land in one; a repository before files,
because it wants its target empty; buckets last, as nothing is ever merged into one."""
MOUNTS = "mounts"
"""Of an attempt's directory: what its buckets have there."""


def _nobody(store: str, key: str) -> Access:
    raise SourceError("this node has no server that says how a store is reached")


class Sources:
    """All sources of this node; `home` is the agent's directory: blobs and repositories are kept
    in its `cache`, volumes without a path in its `volumes`."""

    def __init__(
        self, home: Path, fetch: Fetch, *, limit: int | None = None, access: AccessOf = _nobody
    ) -> None:
        cache, unflushed = home / "cache", home / "unflushed"
        blobs = BlobCache(cache / "blobs", fetch, limit=limit)
        self._mounted, self._copied = Mounted(unflushed), Copied(home, unflushed)
        self.buckets = BucketSource(
            {"mount": self._mounted, "cached": self._mounted, "copy": self._copied},
            access,
            unflushed,
        )
        self._attempts = home / "attempts"
        self._by_kind: dict[type[Mount], Source] = {
            HostPath: HostPathSource(home / "volumes"),
            Repo: RepoSource(blobs, cache / "repos"),
            Files: FilesSource(blobs),
            Bucket: self.buckets,
        }

    def of(self, mount: Mount) -> Source:
        """The source that provides this mount."""
        return self._by_kind[type(mount)]

    def put_away(self, directory: Path) -> list[str]:
        """End all that an attempt has mounted, whatever is known of it besides its directory;
        what could not be. Blocks."""
        failed = []
        top = directory / MOUNTS
        for mount in sorted(top.iterdir()) if top.is_dir() else ():
            try:
                self._copied.put_away(mount, directory.name)
                self._mounted.put_away(mount, directory.name)
            except (SourceError, OSError) as error:
                failed.append(str(error))
        return failed

    def tidy(self, known: Collection[str]) -> None:
        """End what is left of attempts that nobody knows any more; called once, before any begins.
        Blocks."""
        self._copied.tidy()
        for directory in self._attempts.glob(f"*/{MOUNTS}"):
            if directory.parent.name not in known:
                for text in self.put_away(directory.parent):
                    log.warning("%s", text)


def in_order(mounts: Sequence[Mount]) -> list[tuple[int, Mount]]:
    """The order in which to prepare mounts, each with its position in the launch; after each
    volume its bind belongs into the `binds` of the `Place` that later ones get."""
    return sorted(enumerate(mounts), key=lambda item: _ORDER.index(type(item[1])))
