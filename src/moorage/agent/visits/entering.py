"""Becoming part of a job that runs: its control group, namespaces, root, user, limits, variables
and working directory are taken from its main process. Standard library only (keeper).
"""

from __future__ import annotations

import codecs
import ctypes
import errno
import os
import resource
import signal

from moorage.agent.keeper import family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

NOT_FOUND, NOT_STARTED, NOT_ENTERED = 127, 126, 125
"""Exit codes, as shells and container engines use them."""
_JOIN = "MOORAGE_JOIN"
"""A variable for the job's own script only."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NEWUSER = 0x10000000
_SPACES = {"user": _NEWUSER, "cgroup": 0x2000000, "ipc": 0x8000000, "uts": 0x4000000,
           "net": 0x40000000, "mnt": 0x20000}  # fmt: skip
"""That of users first: it owns the others."""
_PR_SET_PDEATHSIG, _PR_CAPBSET_READ, _PR_CAPBSET_DROP = 1, 23, 24
_CAPABILITIES = 64
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE,
            signal.SIGXFSZ, signal.SIGCHLD)  # fmt: skip
_LOADED = tuple(codecs.lookup(name) for name in ("utf-8", "latin-1", "unicode_escape"))
"""Python loads them when they are first used, and in the job's root they are not to be found."""
_libc = ctypes.CDLL(None, use_errno=True)


class NotEntered(Exception):
    """One line for the user."""


class Job:
    """Where one is to be entered, as the keeper knows it: `pid` and `start` (clock ticks) of the
    main process, `groups` (directories), `cwd`, `directory` of the attempt; `variables` as in
    /proc/PID/environ, empty where that is to be read."""

    __slots__ = ("cwd", "directory", "groups", "key", "pid", "start", "variables")

    def __init__(self, told: dict[str, Any]) -> None:
        self.key: str = told["key"]
        self.pid: int = told["pid"]
        self.start: int = told["start"]
        self.groups: list[str] = told["groups"]
        self.cwd: str = told["cwd"]
        self.directory: str = told["directory"]
        self.variables: str = told["variables"] or family.variables(self.pid)

    def descriptor(self) -> int:
        """Of the main process: readable when it has ended. NotEntered: it has."""
        try:
            found = os.pidfd_open(self.pid)
        except OSError as error:
            raise NotEntered("the job's process has ended") from error
        if family.start_time(self.pid) != self.start:
            os.close(found)
            raise NotEntered("the job's process has ended")
        return found

    def environment(self) -> dict[str, str]:
        """The variables that its main process was started with."""
        pairs = [entry.partition("=") for entry in self.variables.split("\0")]
        env = {name: value for name, equals, value in pairs if equals}
        env.pop(_JOIN, None)
        env.setdefault("PATH", _PATH)
        return env


def enter(job: Job) -> None:
    """Become part of it; needs a process with one thread, from which a new program is executed
    next. NotEntered."""
    known = os.pidfd_open(job.pid) if os.path.exists(f"/proc/{job.pid}") else -1
    try:
        if known < 0 or family.start_time(job.pid) != job.start:
            raise NotEntered("the job's process has ended")
        status = _status(job.pid)
        limit = _data_limit(job.pid)
        for directory in job.groups:
            _write(f"{directory}/cgroup.procs", "0")
        mapped = _join(job)
        _change_directory(job.cwd)
        resource.setrlimit(resource.RLIMIT_DATA, limit)
        _bound(int(status["CapBnd"][0], 16))
        if not mapped:
            _become(status)
        os.umask(int(status["Umask"][0], 8) if "Umask" in status else 0o022)
    except OSError as error:
        raise NotEntered(f"cannot enter the job: {error.strerror}") from error
    finally:
        if known >= 0:
            os.close(known)


def execute(argv: list[str], env: dict[str, str], own: bool = True) -> NoReturn:
    """Execute it in place of this process, found on PATH; it is hung up on when the parent dies.
    What cannot be executed is told on standard error, and by the exit code. `own`: this process
    handles signals of its own."""
    for number in _HANDLED if own else ():
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGHUP), 0, 0, 0)
    problem = _try(argv, env)
    missing = problem.errno in (errno.ENOENT, errno.ENOTDIR)
    reason = "no such program in the job" if missing else os.strerror(problem.errno or 0)
    complain(f"{argv[0]}: {reason}")
    os._exit(NOT_FOUND if missing else NOT_STARTED)


def _try(argv: list[str], env: dict[str, str]) -> OSError:
    paths = [argv[0]]
    if "/" not in argv[0]:
        paths = [f"{place or '.'}/{argv[0]}" for place in env.get("PATH", _PATH).split(":")]
    problem = OSError(errno.ENOENT, "")
    for path in paths:
        try:
            os.execve(path, argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            problem = error
    return problem


def complain(text: str) -> None:
    """A line on standard error, of ours and not of the command."""
    try:
        os.write(2, f"moorage: {text}\n".encode(errors="backslashreplace"))
    except OSError:  # nobody reads
        pass


def _join(job: Job) -> bool:
    """Enter the namespaces that are not ours; whether one of users is among them. NotEntered."""
    mapped = False
    held = []
    root = os.open(f"/proc/{job.pid}/root", os.O_PATH | os.O_CLOEXEC)
    for name, flag in _SPACES.items():
        path = f"/proc/{job.pid}/ns/{name}"
        if not os.path.exists(f"/proc/self/ns/{name}"):  # a kernel may have been built without
            continue
        if os.stat(path).st_ino != os.stat(f"/proc/self/ns/{name}").st_ino:
            held.append((os.open(path, os.O_RDONLY | os.O_CLOEXEC), flag))
            mapped = mapped or flag == _NEWUSER
    if family.start_time(job.pid) != job.start:  # else these may be of whoever has its number
        raise NotEntered("the job's process has ended")
    for descriptor, flag in held:
        if _libc.setns(descriptor, flag) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        os.close(descriptor)
    _take_root(root)
    os.close(root)
    return mapped


def _take_root(root: int) -> None:
    """An engine may have left the job's root at that of its namespace, and given it another."""
    here, there = os.stat("/"), os.fstat(root)
    if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
        os.fchdir(root)
        os.chroot(".")


def _change_directory(path: str) -> None:
    try:
        os.chdir(path)
    except OSError:  # the job may have removed it
        os.chdir("/")


def _bound(kept: int) -> None:
    """What is executed here may have what the job's programs may have, at most."""
    for number in range(_CAPABILITIES):
        if not kept >> number & 1 and _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def _become(status: dict[str, list[str]]) -> None:
    uid, gid = int(status["Uid"][1]), int(status["Gid"][1])
    groups = [int(text) for text in status.get("Groups", [])]
    if os.geteuid() == 0:
        os.setgroups(groups)
    if (uid, gid) != (os.geteuid(), os.getegid()):
        os.setgid(gid)
        os.setuid(uid)


def _data_limit(pid: int) -> tuple[int, int]:
    """Soft and hard; asking by a system call is for the owner of a process only."""
    for line in _read(f"/proc/{pid}/limits").decode().splitlines():
        if line.startswith("Max data size"):
            soft, hard = line.split()[3:5]
            return _limit(soft), _limit(hard)
    return resource.RLIM_INFINITY, resource.RLIM_INFINITY


def _limit(text: str) -> int:
    return int(text) if text.isdigit() else resource.RLIM_INFINITY


def _status(pid: int) -> dict[str, list[str]]:
    found = {}
    for line in _read(f"/proc/{pid}/status").decode(errors="replace").splitlines():
        name, _, rest = line.partition(":")
        found[name] = rest.split()
    return found


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise NotEntered("the job's process has ended") from error


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
