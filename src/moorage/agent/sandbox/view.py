"""A job's own view of the file system: mount operations in a fresh mount namespace. Standard
library only (keeper).

Operations, in order:
    ["bind", source, target, read_only]   recursive, source as the node sees it
    ["tmpfs", target, size or null]       bytes
    ["skeleton", directory]               cover it by a tmpfs in which everything is bound again
                                          (`/` always comes first)

Everything happens inside the private namespace, so a target, wherever links in it lead, can hide
a file of the node from this job but never change what anyone else sees. A mount point that is
missing is made: in place where the parent is writable (`made.json` remembers it, see
`mountpoints.py`), else, and always in `/`, after an implied skeleton of the parent. Sources are
opened before the first mount, so that no target can hide a source.
"""

from __future__ import annotations

import os
import stat

from moorage.agent.sandbox import mountpoints
from moorage.agent.sandbox.mounting import (
    BIND,
    NODEV,
    NOSUID,
    REC,
    SLAVE,
    MountError,
    make_read_only,
    mount,
)
from moorage.agent.sandbox.roots import Root, check_size, copy_entry, cover_root, lacks_top

_OWN = ("", "/tmp", "/vartmp", "/work")  # noqa: S108
"""What is bound of an attempt's directory, itself included: directories that the agent made."""


class Sandbox:
    """Carries out operations in the present, already private, mount namespace."""

    __slots__ = (
        "_attempt", "_covered", "_directory", "_empty", "_lock", "_made", "_own_root", "_root"
    )  # fmt: skip

    def __init__(self, directory: str, root: Root | None = None) -> None:
        """`directory` is the attempt's; `root`: what this namespace is a copy of."""
        self._directory, self._root = directory, root
        self._covered: list[str] = []
        self._empty = ""
        self._made: list[str] = []
        self._own_root = root is not None and root.own
        self._attempt = self._lock = -1

    def enter(self, operations: list[list[object]]) -> None:
        """All of them; MountError at the first that fails (the namespace dies with its user)."""
        if self._root is None:
            # What the node mounts later still appears here; nothing made here appears there.
            mount("none", "/", None, REC | SLAVE)
        # First of all, because a source that was opened below the old root cannot be bound any
        # more once that root is gone.
        if not self._own_root and any(self._lacks_top(operation) for operation in operations):
            base = os.path.join(self._directory, "tmp")
            os.makedirs(base, 0o700, exist_ok=True)
            cover_root(base)
            self._own_root = True
        # By its descriptor it can be written to even when something is mounted over it.
        self._attempt = _open(self._directory)
        sources: list[int] = []
        try:
            for operation in operations:
                sources.append(self._source(operation) if operation[0] == "bind" else -1)
            for operation, source in zip(operations, sources, strict=True):
                self._apply(operation, source)
        except OSError as error:
            raise MountError(f"{error.filename or 'mounting'}: {error.strerror}") from error
        finally:
            for descriptor in [self._attempt, self._lock, *sources]:
                if descriptor >= 0:
                    os.close(descriptor)

    def _source(self, operation: list[object]) -> int:
        """A descriptor; -1 for the attempt's own directories, which are bound from its."""
        name = str(operation[1])
        return -1 if self._own_place(name) is not None else _open(name)

    def _own_place(self, name: str) -> str | None:
        """Where one of the directories that every attempt has is found, whatever covers it."""
        if not name.startswith(self._directory):
            return None
        below = name[len(self._directory) :]
        return f"/proc/self/fd/{self._attempt}{below}" if below in _OWN else None

    def _lacks_top(self, operation: list[object]) -> bool:
        target = str(operation[2 if operation[0] == "bind" else 1])
        return not self._is_known(target) and lacks_top(target)

    def _is_known(self, target: str) -> bool:
        """Whether it is a directory, reached by no link, that was there before all attempts."""
        return self._root is not None and target in self._root.places

    def _apply(self, operation: list[object], source: int) -> None:
        kind = operation[0]
        if kind == "skeleton":
            if operation[1] != "/":
                self._skeleton(str(operation[1]))
        elif kind == "tmpfs":
            self._tmpfs(str(operation[1]), operation[2])
        elif kind == "bind":
            self._bind(source, str(operation[1]), str(operation[2]), bool(operation[3]))
        else:
            raise MountError(f"unknown mount operation {kind}")

    def _tmpfs(self, target: str, size: object) -> None:
        place = self._mount_point(target, directory=True)
        options = "mode=1777" + (f",size={size}" if size else "")
        mount("tmpfs", place, "tmpfs", NOSUID | NODEV, options, brief=self._is_known(target))
        self._covered.append(place)
        self._empty = f"{place}/"

    def _bind(self, source: int, name: str, target: str, read_only: bool) -> None:
        own = name.startswith(f"{self._directory}/") and not name.startswith(
            f"{self._directory}/files/"
        )
        held = self._own_place(name)
        is_directory = held is not None or stat.S_ISDIR(os.fstat(source).st_mode)
        place = self._mount_point(target, directory=is_directory, own=own)
        held = held or f"/proc/self/fd/{source}"
        mount(held, place, None, BIND | REC, brief=self._is_known(target), name=name)
        self._covered.append(place)
        if read_only:
            make_read_only(place)

    def _mount_point(self, target: str, directory: bool, own: bool = True) -> str:
        """The real path to mount on, made if need be. `own`: no other attempt can have made it."""
        if not target.startswith("/"):
            raise MountError(f"{target} is no absolute path")
        if directory and self._is_known(target):
            return target
        if directory and self._empty and target.startswith(self._empty):
            return self._make_below(target)
        place = os.path.realpath(target)
        if place == "/":
            raise MountError("nothing can be mounted over /")
        bare = not self._is_covered(place) and mountpoints.is_bare(place)
        if bare and (not own or not os.path.exists(place)):
            self._hold()
        if not os.path.exists(place):
            self._make(place, directory)
        elif os.path.isdir(place) != directory:
            raise MountError(
                f"{target} is a {'file' if directory else 'directory'} on this node, "
                f"and what is mounted there is a {'directory' if directory else 'file'}"
            )
        if self._lock >= 0:
            self._note(place)
        return place

    def _make_below(self, target: str) -> str:
        """Make it in a tmpfs of this job in which nothing else is yet, links neither."""
        place = self._empty[:-1]
        for part in target[len(self._empty) :].split("/"):
            place = f"{place}/{part}"
            try:
                os.mkdir(place, 0o755)
            except FileExistsError:
                pass
        self._empty = ""
        return target

    def _hold(self) -> None:
        """Until all is mounted, nobody may remove a mount point that seems unused."""
        if self._lock < 0:
            self._lock = mountpoints.lock(f"/proc/self/fd/{self._attempt}/..")

    def _make(self, place: str, directory: bool) -> None:
        parent = os.path.dirname(place)
        if not os.path.isdir(parent):
            if os.path.exists(parent):
                raise MountError(f"{parent} is not a directory")
            self._make(parent, True)
        if parent != "/" and not os.access(parent, os.W_OK | os.X_OK):
            self._skeleton(parent)
        elif parent == "/" and not self._own_root:
            raise MountError(f"cannot make {place}: a link leads there from inside a mount")
        try:
            if directory:
                os.mkdir(place, 0o755)
            else:
                os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
        except FileExistsError:
            return
        if parent == "/":  # the job's own root, a tmpfs
            self._covered.append(place)
        elif not self._is_covered(place):
            self._made.append(place)

    def _note(self, place: str) -> None:
        """Write down what was made on the node, and what another attempt made and this one uses
        too: the last one removes it. Before it is mounted on, while it can still be undone."""
        if self._is_covered(place):
            return
        attempt = f"/proc/self/fd/{self._attempt}"
        known = mountpoints.made_by_others(f"{attempt}/..", os.path.basename(self._directory))
        noted = list(self._made)
        while place in known or place in self._made:
            noted.append(place)
            place = os.path.dirname(place)
        if not noted:
            return
        try:
            mountpoints.remember(attempt, noted)
        except OSError:
            mountpoints.remove([path for path in self._made if path not in known])
            raise

    def _is_covered(self, path: str) -> bool:
        """Whether what is at `path` is not the node's own file system any more."""
        return any(path == top or path.startswith(f"{top}/") for top in self._covered)

    def _skeleton(self, directory: str) -> None:
        old = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = os.listdir(f"/proc/self/fd/{old}")
            check_size(directory, names)
            mode = stat.S_IMODE(os.fstat(old).st_mode)
            mount("tmpfs", directory, "tmpfs", NOSUID | NODEV, f"mode={mode:o}")
            for name in names:
                copy_entry(f"/proc/self/fd/{old}/{name}", f"{directory}/{name}")
        finally:
            os.close(old)
        self._covered.append(directory)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"cannot use {path}: {error.strerror}") from error
