"""Starting one process of a job. Standard library only (keeper).

Two ways. Where this process may mount (or nothing is to be mounted): a thread leaves the shared
file system context, enters its own mount namespace, joins the v1 groups and calls `posix_spawn`;
the child inherits all of it, and no Python is forked, which would cost twice as much. Elsewhere: a
fork that enters a user namespace, which a process with threads may not.
"""

from __future__ import annotations

import os
import signal
import threading
import time

from moorage.agent.keeper import clerks, programs, spawning
from moorage.agent.keeper.cgroup import Group
from moorage.agent.sandbox import mounting, rootfs, view
from moorage.agent.sandbox.roots import Root, Roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from moorage.agent.keeper.clerks import Handover

JOIN = "MOORAGE_JOIN"
"""Variable that tells the job's script which v2 group to join."""
_NOT_HELD = (
    "durable: fsync: the kernel does not let the job's fsync be held back ({}); remove it, or use "
    "another node"
)
_CAP_SYS_ADMIN = 21
_RESETTABLE = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE,
               signal.SIGXFSZ)  # fmt: skip
"""What the keeper, or Python itself, handles or ignores."""


class LaunchError(Exception):
    """Why nothing was started: one line; `step` is mount, cgroup, cwd, output or exec."""

    def __init__(self, message: str, step: str) -> None:
        super().__init__(message)
        self.step = step


class Started:
    """What became of a start: the pid, or the error; whether the program runs without a shell;
    the prepared root that it uses; when it began (Unix seconds), and when it had not yet its pid
    (monotonic seconds)."""

    __slots__ = ("began", "called", "direct", "error", "listener", "pid", "root")

    def __init__(
        self,
        pid: int = 0,
        direct: bool = False,
        root: Root | None = None,
        error: LaunchError | None = None,
    ) -> None:
        self.pid, self.direct, self.root, self.error = pid, direct, root, error
        self.began = time.time()
        self.called = 0.0
        self.listener = -1
        """By which its held calls are answered."""


def may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False


def start(request: dict[str, Any], group: Group | None, roots: Roots | None) -> Started:
    """Start it from the calling thread, which gets a root and a working directory of its own and
    may end up in any mount namespace. Never raises: `Started.error` says why there is no process.
    """
    root = None
    try:
        mounting.unshare(mounting.CLONE_FS)
        if roots is not None:
            roots.leave()  # the last job's view, in which the output may have another place
        hold = clerks.holder() if request.get("fsyncs") else None
        output = _open_output(request["output"])  # before a mount can hide it
        try:
            if request["mounts"] is not None:
                root = _own_view(request, roots)
            engine = request.get("engine")
            if engine is None or engine.get("joins"):  # else its own memory is not the job's
                _join(group)
            try:
                _change_directory(request["cwd"])
                called = time.monotonic()
                listener = -1 if hold is None else _held(hold)
                started = _spawn_held(request, group, output, listener)
                started.root, started.called = root, called
                return started
            finally:
                if group is not None:
                    group.leave_thread(threading.get_native_id())
        finally:
            os.close(output)
    except LaunchError as error:
        return Started(error=error, root=root)
    except mounting.MountError as error:
        return Started(error=LaunchError(str(error), "mount"))
    except Exception as error:  # the keeper must hear of it, whatever it is
        text = f"{type(error).__name__}: {error}"
        return Started(error=LaunchError(text, "exec"), root=root)


def _held(hold: Callable[[], int]) -> int:
    """This thread must end soon: its own calls are held too."""
    try:
        return hold()
    except clerks.NotHeld as error:
        raise LaunchError(_NOT_HELD.format(error), "hold") from error


def _spawn_held(
    request: dict[str, Any], group: Group | None, output: int, listener: int
) -> Started:
    try:
        started = _spawn(request, group, output)
        started.listener, listener = listener, -1
        return started
    finally:
        if listener >= 0:
            os.close(listener)


def _spawn(request: dict[str, Any], group: Group | None, output: int) -> Started:
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    files = [null, output, output]
    try:
        pid = _spawn_program(request, group, files)
        if pid:
            return Started(pid, True)
        env = _environment(request, group)
        return Started(spawning.spawn(request["argv"], env, files, _RESETTABLE))
    except OSError as error:
        raise LaunchError(f"{request['argv'][0]}: {error.strerror}", "exec") from error
    finally:
        os.close(null)


def _spawn_program(request: dict[str, Any], group: Group | None, files: list[int]) -> int:
    """Start the job's only command without its shell. 0 where that is not possible; the shell
    then finds the same, and says so in its own words."""
    words = request.get("direct")
    if not words or not (group is None or group.holds_by_thread):
        return 0
    path = programs.find(words[0], request["env"]["PATH"])
    if path is None:
        return 0
    # What a shell adds.
    env = {**request["env"], "PWD": os.getcwd(), "SHLVL": "1", "_": path}
    try:
        pid = spawning.spawn(words, env, files, _RESETTABLE, path)
    except (OSError, ValueError):  # no interpreter, a format that only shells know, too long...
        return 0
    if group is not None:
        group.add(pid)
    return pid


def _join(group: Group | None) -> None:
    if group is None:
        return
    try:
        group.join_thread(threading.get_native_id())
    except OSError as error:
        raise LaunchError(f"cannot join the control group: {error}", "cgroup") from error


def _environment(request: dict[str, Any], group: Group | None) -> dict[str, str]:
    env = dict(request["env"])
    if group is not None and group.v2 is not None:
        env[JOIN] = f"{group.v2}/cgroup.procs"
    return env


def _own_view(request: dict[str, Any], roots: Roots | None) -> Root | None:
    """Enter the job's namespace, and say of which root, that may serve again, it is a copy."""
    root = None
    directory = request["directory"]
    try:
        if roots is not None:
            root = roots.take(os.path.join(directory, "tmp"))
            root.enter()
        else:
            mounting.unshare(mounting.CLONE_NEWNS)
        view.Sandbox(directory, root).enter(request["mounts"])
    except (mounting.MountError, OSError) as error:
        if root is not None:
            root.close()  # whatever may be wrong with it
        raise LaunchError(str(error), "mount") from error
    return None if roots is None or root is None else roots.lend(root)


def by_fork(request: dict[str, Any], group: Group | None) -> tuple[int, int, Handover | None]:
    """Start it in its own user and mount namespace; a container in its own root and in `group`.
    The pid; a descriptor from which `step\\tmessage` can be read when it failed, nothing when
    it runs; and where its held calls are handed over. LaunchError."""
    handed = clerks.Handover() if request.get("fsyncs") else None
    reader, writer = os.pipe()
    output = -1
    try:
        output = _open_output(request["output"])
        # A signal for the child before its handlers are reset would wake the parent's loop.
        old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                _child(request, group, output, writer, handed)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)
    except OSError as error:
        _give_up(reader, handed)
        raise LaunchError(f"cannot start a process: {error.strerror}", "exec") from error
    except LaunchError:
        _give_up(reader, handed)
        raise
    finally:
        os.close(writer)
        if output >= 0:
            os.close(output)
    return pid, reader, handed


def _give_up(reader: int, handed: Handover | None) -> None:
    os.close(reader)
    if handed is not None:
        handed.received()


def _child(
    request: dict[str, Any],
    group: Group | None,
    output: int,
    writer: int,
    handed: Handover | None,
) -> None:
    """What the fork does; never returns."""
    try:
        os.setsid()
        spawning.go_first(os.getpid())
        signal.set_wakeup_fd(-1)
        for number in _RESETTABLE:
            signal.signal(number, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        if request.get("container") is not None:
            hold = None if handed is None else handed.hold
            rootfs.run(request, group, not may_mount(), hold)
        mounting.own_user_namespace()
        view.Sandbox(request["directory"]).enter(request["mounts"])
        _change_directory(request["cwd"])
        if handed is not None:
            handed.hold()
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execve(request["argv"][0], request["argv"], request["env"])
    except mounting.MountError as error:
        os.write(writer, f"mount\t{error}".encode())
    except clerks.NotHeld as error:
        os.write(writer, f"hold\t{_NOT_HELD.format(error)}".encode())
    except (LaunchError, rootfs.NotStarted) as error:
        os.write(writer, f"{error.step}\t{error}".encode())
    except BaseException as error:
        os.write(writer, f"exec\t{request['argv'][0]}: {error}".encode())
    finally:
        os._exit(127)


def _open_output(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
    try:
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            return os.open(path, flags, 0o600)
    except OSError as error:
        raise LaunchError(
            f"cannot write the output to {path}: {error.strerror}", "output"
        ) from error


def _change_directory(path: str) -> None:
    try:
        os.chdir(path)
    except OSError as error:
        raise LaunchError(f"working directory {path}: {error.strerror}", "cwd") from error
