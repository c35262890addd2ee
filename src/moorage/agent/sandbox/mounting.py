"""Mounts and namespaces: the system calls, with errors that a user can read. Standard library only
(keeper)."""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CLONE_FS, CLONE_NEWNS, CLONE_NEWUSER = 0x200, 0x20000, 0x10000000
NOSUID, NODEV, BIND, MOVE = 0x2, 0x4, 0x1000, 0x2000
RDONLY, REMOUNT, REC = 0x1, 0x20, 0x4000
UNBINDABLE, PRIVATE, SLAVE = 1 << 17, 1 << 18, 1 << 19
_DETACH = 2
_SYS_MOUNT_SETATTR, _SYS_PIVOT_ROOT = 442, {"x86_64": 155, "aarch64": 41}
_AT_RECURSIVE, _AT_EMPTY_PATH = 0x8000, 0x1000

_libc = ctypes.CDLL(None, use_errno=True)
_held = ctypes.PyDLL(None, use_errno=True)
"""Keeps Python's lock during a call: for those that never wait, where giving it up and getting it
back takes longer than the call."""


class MountError(Exception):
    """One line for the user."""


def check(result: int, what: str) -> None:
    """MountError with errno's text where a C call failed."""
    if result != 0:
        raise MountError(f"{what}: {os.strerror(ctypes.get_errno())}")


def unshare(flags: int) -> None:
    """Leave namespaces, or the file system context of the other threads. MountError."""
    if _held.unshare(flags) != 0:
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


def enter(namespace: int, flags: int) -> None:
    """setns(2): become part of the namespace with that descriptor. MountError."""
    # Whoever is the last to leave a namespace waits for the kernel to take it apart.
    check(_libc.setns(namespace, flags), "the kernel refuses a namespace that it gave before")


def mount(
    source: str,
    target: str,
    kind: str | None,
    flags: int,
    data: str = "",
    *,
    brief: bool = False,
    name: str = "",
) -> None:
    """mount(2). `brief`: nothing in it can hang on a server; `name`: what errors call the source.
    MountError."""
    result = (_held if brief else _libc).mount(
        os.fsencode(source),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    if result != 0:
        what = f"bind {name}" if name else f"mount {source}"
        check(result, f"cannot {what} at {target}")


def change_root() -> None:
    """Make the working directory, a mount, the root, and drop the old one from view."""
    if pivot():
        leave_old_root()
    os.chdir("/")


def pivot() -> bool:
    """Make the working directory, a mount, the root; whether the old one lies over it, out of
    view, until `leave_old_root` is called from the same directory. MountError, OSError."""
    number = _SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is not None and _libc.syscall(ctypes.c_long(number), b".", b".") == 0:
        return True
    # The root is the boot image itself, which cannot be pivoted away from.
    mount(".", "/", None, MOVE)
    os.chroot(".")
    return False


def leave_old_root() -> None:
    """After `pivot`. MountError."""
    check(_libc.umount2(b".", _DETACH), "cannot leave the old root")


class _MountAttributes(ctypes.Structure):
    _fields_ = [
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    ]


def make_read_only(*places: str) -> None:
    """The mounts at these places and all below them; MountError unless the kernel says that they
    are."""
    for place in places:
        _set_read_only(place)
    left = _writable(places)
    for point, options in left:
        # A kernel before 5.12: one by one, keeping the flags that may not be dropped.
        mount("none", point, None, REMOUNT | BIND | RDONLY | _kept(options))
    if left and (still := _writable(places)):
        raise MountError(f"{still[0][0]} could not be made read-only")


def _set_read_only(place: str) -> None:
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


def _writable(places: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Mounts at these places or below that are not read-only, with their options. Not those that
    another one hides: of /proc/sys, bound over itself, whatever was mounted in there before."""
    found: dict[int, tuple[int, str, list[str]]] = {}
    with open("/proc/thread-self/mountinfo", "rb") as file:
        for line in file:
            fields = line.split(b" ")
            point = os.fsdecode(fields[4].decode("unicode_escape").encode("latin-1"))
            options = fields[5].decode().split(",")
            found[int(fields[0])] = (int(fields[1]), point, options)
    tops = {_mount_of(place) for place in places}
    return [
        (point, options)
        for number, (_, point, options) in found.items()
        if "ro" not in options and _descends(number, tops, found)
    ]


def _mount_of(place: str) -> int:
    """The number of the mount that is seen there. OSError."""
    fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/thread-self/fdinfo/{fd}") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))
    finally:
        os.close(fd)


def _descends(number: int, tops: set[int], mounts: dict[int, tuple[int, str, list[str]]]) -> bool:
    while number not in tops:
        if number not in mounts or mounts[number][0] == number:
            return False
        number = mounts[number][0]
    return True


def _kept(options: list[str]) -> int:
    flags = {"nosuid": NOSUID, "nodev": NODEV, "noexec": 0x8, "noatime": 0x400,
             "nodiratime": 0x800, "relatime": 1 << 21}  # fmt: skip
    return sum(flags.get(option, 0) for option in options)
