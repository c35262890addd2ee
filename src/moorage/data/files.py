"""Uploaded files and directories on the node."""

from __future__ import annotations

from moorage.data.base import Bind, Handle, NotHere, Place, SourceError, hides
from moorage.data.blobs import BlobCache
from moorage.specs.mounts import Files, Mount


class FilesSource:
    """Merges a tree into the working directory or a volume; elsewhere it becomes a bind of its
    own, made below the attempt's directory."""

    def __init__(self, blobs: BlobCache) -> None:
        self._blobs = blobs

    def problems(self, mount: Mount) -> tuple[list[str], list[str]]:
        """See `data.base.Source`."""
        assert isinstance(mount, Files)
        if mount.tree is None:
            return [f"{mount.source} was not uploaded; submit it with moorage apply"], []
        return [], []

    def prepare(self, mount: Mount, place: Place, number: int) -> Handle:
        """See `data.base.Source`."""
        assert isinstance(mount, Files)
        if mount.tree is None:
            raise SourceError(f"{mount.source} was not uploaded; submit it with moorage apply")
        target = place.target(mount.target)
        landing = place.landing(target)
        if landing is None:
            if why := hides(target):
                raise NotHere(why)
            own = place.directory / "files" / str(number) / "tree"
            own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            laid = self._blobs.materialize(mount.tree, own)
            return Handle([Bind(own, target)], f"{mount.target}: {laid}")
        if landing.read_only:
            raise SourceError(f"{mount.target} lies in a read-only volume; drop its :ro")
        laid = self._blobs.materialize(mount.tree, landing.root, landing.rest, merge=True)
        return Handle(detail=f"{mount.target}: {laid}")

    def release(self, mount: Mount, place: Place, number: int) -> None:
        """Nothing to undo: what lies in the attempt's directory goes with it, what was merged into
        a volume is the volume's."""
