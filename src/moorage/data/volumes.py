"""Directories and files of the node itself (dstack: instance volumes)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from moorage.data.base import Bind, Handle, NotHere, Place, SourceError
from moorage.specs.mounts import HostPath, Mount


class HostPathSource:
    """Binds a path of the node. A missing directory is made when its parent exists: that helps
    with a first run, and still catches the misspelt path and the filesystem not mounted.

    A name without slashes is a directory that the node keeps below `volumes`."""

    def __init__(self, volumes: Path) -> None:
        self._volumes = volumes

    def problems(self, mount: Mount) -> tuple[list[str], list[str]]:
        """See `data.base.Source`."""
        assert isinstance(mount, HostPath)
        try:
            note = self._look(mount)
        except SourceError as error:
            return [str(error)], []
        return [], [note] if note else []

    def prepare(self, mount: Mount, place: Place, number: int) -> Handle:
        """See `data.base.Source`."""
        assert isinstance(mount, HostPath)
        if self._kept(mount):
            self._volumes.mkdir(mode=0o700, parents=True, exist_ok=True)
        note = self._look(mount)
        source = self._source(mount)
        if not source.exists():
            if mount.optional:
                return Handle(detail=note)
            _make(source)
        bind = Bind(Path(os.path.realpath(source)), place.target(mount.target), mount.read_only)
        return Handle([bind], note)

    def release(self, mount: Mount, place: Place, number: int) -> None:
        """Nothing to undo: a volume outlives its jobs."""

    def _kept(self, mount: HostPath) -> bool:
        return "/" not in mount.source and mount.source not in ("", ".", "..")

    def _source(self, mount: HostPath) -> Path:
        return self._volumes / mount.source if self._kept(mount) else Path(mount.source)

    def _look(self, mount: HostPath) -> str:
        """What is worth saying about it; SourceError where it cannot be had."""
        source = self._source(mount)
        if not source.is_absolute():
            raise SourceError(f"{source}: a path on the node must be absolute; begin it with /")
        if ".." in source.parts:
            raise SourceError(f"{source}: '..' is not allowed in a path on the node; write it out")
        try:
            mode = source.stat().st_mode
        except FileNotFoundError:
            return self._absent(source, mount)
        except OSError as error:
            raise NotHere(f"{source}: {error.strerror}; ask the node's administrator") from None
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise NotHere(f"{source} is a device, socket or pipe; name a directory or a file")
        if not os.access(source, os.R_OK if mount.read_only else os.R_OK | os.W_OK):
            wish = "read" if mount.read_only else "written; add :ro, or change its permissions"
            raise NotHere(f"{source} cannot be {wish}")
        return ""

    def _absent(self, source: Path, mount: HostPath) -> str:
        if source.is_symlink():
            raise NotHere(f"{source} is a link to nothing; repair it on the node")
        if self._kept(mount) and not mount.optional:
            return f"volume {mount.source} is created on this node, in {self._volumes}"
        if mount.optional:
            return f"{source} is not on this node: left out, as it is optional"
        if mount.read_only:
            raise NotHere(f"{source} does not exist on this node; create it, or drop :ro")
        if not source.parent.is_dir():
            raise NotHere(
                f"{source}: {source.parent} does not exist on this node; create it, mount it, "
                "or make the volume optional"
            )
        if not os.access(source.parent, os.W_OK | os.X_OK):
            raise NotHere(
                f"{source} does not exist and {source.parent} is not writable; create it there"
            )
        return f"{source} is created on this node"


def _make(source: Path) -> None:
    try:
        source.mkdir(mode=0o777)
    except FileExistsError:
        pass  # another attempt was faster
    except OSError as error:
        raise NotHere(f"{source} cannot be created: {error.strerror}") from None
