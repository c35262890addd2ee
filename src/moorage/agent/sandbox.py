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

import ctypes
import errno
import os
import stat

from moorage.agent import mountpoints

CLONE_FS, CLONE_NEWNS, CLONE_NEWUSER = 0x200, 0x20000, 0x10000000
_NOSUID, _NODEV, _BIND, _MOVE = 0x2, 0x4, 0x1000, 0x2000
_RDONLY, _REMOUNT, _REC = 0x1, 0x20, 0x4000
_UNBINDABLE, _PRIVATE, _SLAVE = 1 << 17, 1 << 18, 1 << 19
_DETACH = 2
_SYS_MOUNT_SETATTR, _SYS_PIVOT_ROOT = 442, {"x86_64": 155, "aarch64": 41}
_AT_RECURSIVE, _AT_EMPTY_PATH = 0x8000, 0x1000
_SKELETON_LIMIT = 2000
"""Entries: each becomes a mount, and thousands of them would slow the whole node down."""

_libc = ctypes.CDLL(None, use_errno=True)


class MountError(Exception):
    """One line for the user."""


def check(result: int, what: str) -> None:
    """MountError with errno's text where a C call failed."""
    if result != 0:
        raise MountError(f"{what}: {os.strerror(ctypes.get_errno())}")


def unshare(flags: int) -> None:
    """Leave namespaces, or the file system context of the other threads. MountError."""
    if _libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        # "No space left on device" would send people to look at their disks.
        full = "the limit on their number is reached"
        reason = full if number == errno.ENOSPC else os.strerror(number)
        raise MountError(f"the kernel refuses a new namespace: {reason}")


def own_user_namespace() -> None:
    """Enter a user namespace (with a mount namespace) in which this user stays who they are, but
    may mount. Only in a process with one thread. MountError."""
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER | CLONE_NEWNS)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        try:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        except OSError as error:
            if name != "setgroups":
                raise MountError(f"the kernel refuses a user mapping: {error.strerror}") from error


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2). MountError."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    check(result, f"cannot mount {source} at {target}")


class Sandbox:
    """Carries out operations in the present, already private, mount namespace."""

    __slots__ = ("_attempt", "_covered", "_directory", "_lock", "_made", "_own_root")

    def __init__(self, directory: str) -> None:
        """`directory` is the attempt's."""
        self._directory = directory
        self._covered: list[str] = []
        self._made: list[str] = []
        self._own_root = False
        self._attempt = self._lock = -1

    def enter(self, operations: list[list[object]]) -> None:
        """All of them; MountError at the first that fails (the namespace dies with its user)."""
        # What the node mounts later still appears here; nothing made here appears there.
        mount("none", "/", None, _REC | _SLAVE)
        # First of all, because a source that was opened below the old root cannot be bound any
        # more once that root is gone.
        if any(_lacks_top(str(op[2 if op[0] == "bind" else 1])) for op in operations):
            self._new_root()
        # By its descriptor it can be written to even when something is mounted over it.
        self._attempt = _open(self._directory)
        sources: list[int] = []
        try:
            for operation in operations:
                sources.append(_open(str(operation[1])) if operation[0] == "bind" else -1)
            for operation, source in zip(operations, sources, strict=True):
                self._apply(operation, source)
        except OSError as error:
            raise MountError(f"{error.filename or 'mounting'}: {error.strerror}") from error
        finally:
            for descriptor in [self._attempt, self._lock, *sources]:
                if descriptor >= 0:
                    os.close(descriptor)

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
        mount("tmpfs", place, "tmpfs", _NOSUID | _NODEV, options)
        self._covered.append(place)

    def _bind(self, source: int, name: str, target: str, read_only: bool) -> None:
        own = name.startswith(f"{self._directory}/") and not name.startswith(
            f"{self._directory}/files/"
        )
        is_directory = stat.S_ISDIR(os.fstat(source).st_mode)
        place = self._mount_point(target, directory=is_directory, own=own)
        result = _libc.mount(
            f"/proc/self/fd/{source}".encode(), os.fsencode(place), None, _BIND | _REC, None
        )
        check(result, f"cannot bind {name} at {target}")
        self._covered.append(place)
        if read_only:
            _make_read_only(place)

    def _mount_point(self, target: str, directory: bool, own: bool = True) -> str:
        """The real path to mount on, made if need be. `own`: no other attempt can have made it."""
        if not target.startswith("/"):
            raise MountError(f"{target} is no absolute path")
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
            _check_size(directory, names)
            mode = stat.S_IMODE(os.fstat(old).st_mode)
            mount("tmpfs", directory, "tmpfs", _NOSUID | _NODEV, f"mode={mode:o}")
            for name in names:
                _copy_entry(f"/proc/self/fd/{old}/{name}", f"{directory}/{name}")
        finally:
            os.close(old)
        self._covered.append(directory)

    def _new_root(self) -> None:
        """A tmpfs as root, in which everything of the old one is bound again."""
        names = os.listdir("/")
        _check_size("/", names)
        base = os.path.join(self._directory, "tmp")
        os.makedirs(base, 0o700, exist_ok=True)
        mount("tmpfs", base, "tmpfs", _NODEV, "mode=755")
        # Else binding the directory that holds `base` would drag the new root into itself.
        mount("none", base, None, _UNBINDABLE)
        for name in names:
            _copy_entry(f"/{name}", f"{base}/{name}")
        os.chdir(base)
        _change_root()
        mount("none", "/", None, _PRIVATE)
        self._own_root = True


def _lacks_top(target: str) -> bool:
    """Whether the first part of a target's real path is missing, or `/` itself is meant."""
    place = os.path.realpath(target)
    return place == "/" or not os.path.lexists("/" + place.split("/")[1])


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"cannot use {path}: {error.strerror}") from error


def _check_size(directory: str, names: list[str]) -> None:
    if len(names) > _SKELETON_LIMIT:
        raise MountError(
            f"cannot make a mount point in {directory}: it is not writable and has "
            f"{len(names)} entries; ask its owner to make the directory"
        )


def _copy_entry(source: str, target: str) -> None:
    mode = os.lstat(source).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
        return
    if stat.S_ISDIR(mode):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
    mount(source, target, None, _BIND | _REC)


def _change_root() -> None:
    """Make the working directory, a mount, the root, and drop the old one from view."""
    number = _SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is not None and _libc.syscall(ctypes.c_long(number), b".", b".") == 0:
        check(_libc.umount2(b".", _DETACH), "cannot leave the old root")
    else:  # the root is the boot image itself, which cannot be pivoted away from
        mount(".", "/", None, _MOVE)
        os.chroot(".")
    os.chdir("/")


class _MountAttributes(ctypes.Structure):
    _fields_ = [
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    ]


def _make_read_only(place: str) -> None:
    """The mount at `place` and all below it; MountError unless the kernel says that they are."""
    fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        attributes = _MountAttributes(set=1)  # MOUNT_ATTR_RDONLY
        _libc.syscall(
            ctypes.c_long(_SYS_MOUNT_SETATTR),
            ctypes.c_int(fd),
            b"",
            ctypes.c_uint(_AT_EMPTY_PATH | _AT_RECURSIVE),
            ctypes.byref(attributes),
            ctypes.c_size_t(ctypes.sizeof(attributes)),
        )
    finally:
        os.close(fd)
    for point, options in _mounts_below(place):
        if "ro" in options:
            continue
        # A kernel before 5.12: one by one, keeping the flags that may not be dropped.
        mount("none", point, None, _REMOUNT | _BIND | _RDONLY | _kept(options))
    if any("ro" not in options for _, options in _mounts_below(place)):
        raise MountError(f"{place} could not be made read-only")


def _mounts_below(place: str) -> list[tuple[str, list[str]]]:
    found = []
    with open("/proc/thread-self/mountinfo", "rb") as file:
        for line in file:
            fields = line.split(b" ")
            point = os.fsdecode(fields[4].decode("unicode_escape").encode("latin-1"))
            if point == place or point.startswith(place + "/"):
                found.append((point, fields[5].decode().split(",")))
    return found


def _kept(options: list[str]) -> int:
    flags = {"nosuid": _NOSUID, "nodev": _NODEV, "noexec": 0x8, "noatime": 0x400,
             "nodiratime": 0x800, "relatime": 1 << 21}  # fmt: skip
    return sum(flags.get(option, 0) for option in options)
