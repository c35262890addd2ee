"""The file system of a container, made in a mount namespace of its own: a writable layer over an
image that all jobs share, with the kernel's file systems, devices and the job's mounts in it.
Standard library only (keeper).

Everything after the change of the root happens inside the new one, where no link of the image can
lead out of it; what is bound there is reached through a descriptor of the old root, which goes
last.
"""

from __future__ import annotations

import codecs
import errno
import glob
import os
import resource
import signal
import stat

from moorage.agent.keeper.cgroup import Group, write
from moorage.agent.sandbox import accounts, mounting
from moorage.agent.sandbox.accounts import Account, NoSuchUser
from moorage.agent.sandbox.loopdevice import mount_image
from moorage.agent.sandbox.mounting import BIND, NODEV, NOSUID, REC, SLAVE, MountError, mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_NODES = ("null", "zero", "full", "random", "urandom", "tty")
_ACCELERATORS = ("nvidia*", "dri", "kfd", "accel", "infiniband", "tenstorrent")
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
          "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}  # fmt: skip
_KERNEL = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")
"""What of /proc would change the node."""
_NODE_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname")
_LOADED = tuple(codecs.lookup(name) for name in ("utf-8", "latin-1", "unicode_escape"))
"""Python loads them when they are first used, and in the new root they are not to be found."""
NAME = "image"
"""Directory of an attempt with all that belongs to its writable layer."""


class NotStarted(Exception):
    """One line for the user; `step` as in `launching.LaunchError`."""

    def __init__(self, message: str, step: str) -> None:
        super().__init__(message)
        self.step = step


class ContainerRoot:
    """One container's; `enter` turns the calling process, which has one thread, into it."""

    __slots__ = ("_below", "_directory", "_mapped", "_new", "_old", "_read_only", "_wanted")

    def __init__(self, directory: str, wanted: dict[str, Any], mapped: bool) -> None:
        """`directory`: the attempt's; `wanted`: `container` of the request; `mapped`: in a user
        namespace, because this process may not mount."""
        self._directory, self._wanted, self._mapped = directory, wanted, mapped
        self._old = self._new = -1
        self._below = False
        self._read_only: list[str] = []

    def enter(self, operations: list[list[Any]]) -> Account:
        """Make it, with `operations` as in `view.py` but for skeletons, and become part of it.
        The account that the process is to have. MountError."""
        try:
            return self._enter(operations)
        except NoSuchUser as error:
            raise MountError(str(error)) from error
        except OSError as error:
            raise MountError(f"{error.filename or 'container'}: {error.strerror}") from error

    def _enter(self, operations: list[list[Any]]) -> Account:
        account = None
        if self._mapped:
            account = accounts.find(self._wanted["user"], self._wanted["root"])
            _own_namespace(account)
        else:
            mounting.unshare(mounting.CLONE_NEWNS)
        mount("none", "/", None, REC | SLAVE)
        binds = [[*operation] for operation in operations]
        files = [["bind", path, path, True] for path in _NODE_FILES if os.path.exists(path)]
        held = [_hold(one) for one in (*files, *binds)]
        own = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in self._wanted["own"]]
        base = f"{self._directory}/{NAME}/root"
        self._layer(base)
        self._old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._pivot(base)
        self._kernel()
        for operation, source in zip((*files, *binds), held, strict=True):
            self._apply(operation, source)
        if account is None:
            account = accounts.find(self._wanted["user"])
            if account.uid or account.gid:
                accounts.give(account, own)
        self._leave()
        # Now, because mounts of the old root had the same paths.
        mounting.make_read_only(*self._read_only)
        return account

    def _layer(self, base: str) -> None:
        top = f"{self._directory}/{NAME}"
        for name in ("", "/root", "/upper", "/work", "/lower"):
            try:
                os.mkdir(top + name, 0o755)
            except FileExistsError:
                continue
        lower = self._wanted["root"]
        if self._wanted["file"]:
            lower = f"{top}/lower"
            mount_image(self._wanted["file"], self._wanted["offset"], lower)
        if not os.path.isdir(lower):
            raise MountError(f"image: {lower} is not a directory")
        try:
            self._overlay(base, lower, top)
        except MountError:
            # Not every file system can hold the writable layer, another overlay for one.
            mount("tmpfs", top, "tmpfs", NOSUID | NODEV, "mode=700")
            for name in ("/root", "/upper", "/work"):
                os.mkdir(top + name, 0o755)
            if self._wanted["file"]:
                raise
            self._overlay(base, lower, top)

    def _overlay(self, base: str, lower: str, top: str) -> None:
        # By descriptors: a path may hold characters that mean something in the options.
        places = [
            os.open(path, os.O_PATH | os.O_CLOEXEC)
            for path in (lower, f"{top}/upper", f"{top}/work")
        ]
        try:
            names = ("lowerdir", "upperdir", "workdir")
            options = [f"{n}=/proc/self/fd/{fd}" for n, fd in zip(names, places, strict=True)]
            options += ["userxattr"] if self._mapped else []
            # Else devices that an image brings would be the node's.
            flags = 0 if self._wanted["privileged"] else NODEV
            mount("overlay", base, "overlay", flags, ",".join(options), name="the image")
        finally:
            for descriptor in places:
                os.close(descriptor)

    def _pivot(self, base: str) -> None:
        os.chdir(base)
        self._new = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._below = mounting.pivot()
        os.fchdir(self._old)

    def _leave(self) -> None:
        os.fchdir(self._new)
        if self._below:
            mounting.leave_old_root()
        os.chdir("/")
        os.close(self._old)
        os.close(self._new)

    def _kernel(self) -> None:
        """/proc, /sys and /dev; without privileges nothing there changes the node."""
        for name in ("proc", "sys", "dev"):
            _directory(f"/{name}")
        mount("./proc", "/proc", None, BIND | REC)
        mount("./sys", "/sys", None, BIND | REC)
        if self._wanted["privileged"]:
            mount("./dev", "/dev", None, BIND | REC)
            return
        for path in filter(os.path.exists, _KERNEL):
            mount(path, path, None, BIND | REC)
            self._read_only.append(path)
        self._read_only.append("/sys")
        self._devices()

    def _devices(self) -> None:
        mount("tmpfs", "/dev", "tmpfs", NOSUID, "mode=755,size=65536k")
        names = [name for name in _NODES if os.path.exists(f"./dev/{name}")]
        for pattern in _ACCELERATORS:
            names += [path.removeprefix("./dev/") for path in glob.glob(f"./dev/{pattern}")]
        for name in names:
            target = f"/dev/{name}"
            if os.path.isdir(f"./dev/{name}"):
                os.mkdir(target)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
            mount(f"./dev/{name}", target, None, BIND | REC)
        for name, target in _LINKS.items():
            os.symlink(target, f"/dev/{name}")
        os.mkdir("/dev/pts")
        os.mkdir("/dev/shm")  # noqa: S108 (the container's)
        mount("devpts", "/dev/pts", "devpts", NOSUID, "newinstance,ptmxmode=0666,mode=0620")

    def _apply(self, operation: list[Any], source: int) -> None:
        if operation[0] == "tmpfs":
            size = f",size={operation[2]}" if operation[2] else ""
            place = _directory(os.path.realpath(operation[1]))
            mount("tmpfs", place, "tmpfs", NOSUID | NODEV, f"mode=1777{size}")
            return
        _, name, target, read_only = operation
        place = os.path.realpath(target)
        if stat.S_ISDIR(os.fstat(source).st_mode):
            _directory(place)
        else:
            _file(place)
        mount(f"./proc/self/fd/{source}", place, None, BIND | REC, name=name)
        os.close(source)
        if read_only:
            self._read_only.append(place)


def _hold(operation: list[Any]) -> int:
    """A descriptor of what is to be bound: after the change of the root its path is another's."""
    if operation[0] != "bind":
        return -1
    try:
        return os.open(operation[1], os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"cannot use {operation[1]}: {error.strerror}") from error


def _own_namespace(account: Account) -> None:
    """A user namespace in which this user is the account, and owns all that it may mount."""
    outside = (os.geteuid(), os.getegid())
    mounting.unshare(mounting.CLONE_NEWUSER | mounting.CLONE_NEWNS)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{account.uid} {outside[0]} 1"),
        ("gid_map", f"{account.gid} {outside[1]} 1"),
    ):
        try:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        except OSError as error:
            raise MountError(f"the kernel refuses a user mapping: {error.strerror}") from error


def _directory(path: str) -> str:
    """Make it, in the writable layer, where the image does not have it."""
    if os.path.exists(path) and not os.path.isdir(path):
        raise MountError(f"{path} is a file in the image, and a directory is to be mounted there")
    os.makedirs(path, 0o755, exist_ok=True)
    return path


def _file(path: str) -> None:
    if os.path.isdir(path):
        raise MountError(f"{path} is a directory in the image, and a file is to be mounted there")
    if not os.path.exists(path):
        _directory(os.path.dirname(path))
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def run(
    request: dict[str, Any],
    group: Group | None,
    mapped: bool,
    hold: Callable[[], None] | None = None,
) -> NoReturn:
    """Become the first process of a container; `hold` has its `fsync` held. NotStarted."""
    wanted, argv = request["container"], request["argv"]
    try:
        for directory in group.directories if group is not None else ():
            write(f"{directory}/cgroup.procs", "0")
    except OSError as error:
        raise NotStarted(f"cannot join the control group: {error}", "cgroup") from error
    try:
        account = ContainerRoot(request["directory"], wanted, mapped).enter(request["mounts"])
    except MountError as error:
        raise NotStarted(str(error), "mount") from error
    try:
        os.chdir(_directory(request["cwd"]))
    except (MountError, OSError) as error:
        raise NotStarted(f"working directory {request['cwd']}: {error}", "cwd") from error
    try:
        if (limit := wanted["process_memory"]) is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        if hold is not None:  # it needs capabilities
            hold()
        if not wanted["privileged"]:
            accounts.limit_capabilities()
        if not mapped:
            accounts.become(account)
        os.umask(0o022)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        _execute(argv, {"HOME": account.home, **request["env"]})
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotStarted(f"{argv[0]} cannot be started in the image: {reason}", "exec") from error


def _execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """Execute it, found on the container's PATH. Not by `os.execvpe`, which imports a module on
    the way, and there are none any more. OSError."""
    paths = [argv[0]]
    if "/" not in argv[0]:
        paths = [f"{place or '.'}/{argv[0]}" for place in env.get("PATH", "").split(":")]
    problem = OSError(errno.ENOENT, "it is not there")
    for path in paths:
        try:
            os.execve(path, argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            problem = error
    raise problem
