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

from moorage.agent import sandbox, spawning
from moorage.agent.cgroup import Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

JOIN = "MOORAGE_JOIN"
"""Variable that tells the job's script which v2 group to join."""
_CAP_SYS_ADMIN = 21


class LaunchError(Exception):
    """Why nothing was started: one line; `step` is mount, cgroup, cwd, output or exec."""

    def __init__(self, message: str, step: str) -> None:
        super().__init__(message)
        self.step = step


def may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False


def by_thread(
    request: dict[str, Any], group: Group | None, done: Callable[[int | LaunchError], None]
) -> None:
    """Start it on a thread of its own (a mount may hang for as long as its server does); `done`
    is called there with the pid or the error."""

    def run() -> None:
        try:
            done(_spawn(request, group))
        except LaunchError as error:
            done(error)
        except Exception as error:  # the keeper must hear of it, whatever it is
            done(LaunchError(f"{type(error).__name__}: {error}", "exec"))

    threading.Thread(target=run, daemon=True).start()


def _spawn(request: dict[str, Any], group: Group | None) -> int:
    output = _open_output(request["output"])  # before a mount can hide it
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _own_view(request)
        _join(group)
        _change_directory(request["cwd"])
        return spawning.spawn(
            request["argv"], _environment(request, group), [null, output, output], _resettable()
        )
    except OSError as error:
        raise LaunchError(f"{request['argv'][0]}: {error.strerror}", "exec") from error
    finally:
        os.close(null)
        os.close(output)
        if group is not None:
            group.leave_thread(threading.get_native_id())


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


def _own_view(request: dict[str, Any]) -> None:
    mounts = request["mounts"]
    try:
        if mounts is None:
            sandbox.unshare(sandbox.CLONE_FS)
        else:
            sandbox.unshare(sandbox.CLONE_FS | sandbox.CLONE_NEWNS)
            sandbox.Sandbox(request["directory"]).enter(mounts)
    except sandbox.MountError as error:
        raise LaunchError(str(error), "mount") from error


def by_fork(request: dict[str, Any]) -> tuple[int, int]:
    """Start it in its own user and mount namespace. The pid, and a descriptor from which
    `step\\tmessage` can be read when it failed, nothing when it runs. LaunchError."""
    reader, writer = os.pipe()
    output = -1
    try:
        output = _open_output(request["output"])
        # A signal for the child before its handlers are reset would wake the parent's loop.
        old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                _child(request, output, writer)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)
    except OSError as error:
        os.close(reader)
        raise LaunchError(f"cannot start a process: {error.strerror}", "exec") from error
    except LaunchError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
        if output >= 0:
            os.close(output)
    return pid, reader


def _child(request: dict[str, Any], output: int, writer: int) -> None:
    """What the fork does; never returns."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in _resettable():
            signal.signal(number, signal.SIG_DFL)
        sandbox.own_user_namespace()
        sandbox.Sandbox(request["directory"]).enter(request["mounts"])
        _change_directory(request["cwd"])
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execve(request["argv"][0], request["argv"], request["env"])
    except sandbox.MountError as error:
        os.write(writer, f"mount\t{error}".encode())
    except LaunchError as error:
        os.write(writer, f"{error.step}\t{error}".encode())
    except BaseException as error:
        os.write(writer, f"exec\t{request['argv'][0]}: {error}".encode())
    finally:
        os._exit(127)


def _open_output(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
    try:
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


def _resettable() -> set[signal.Signals]:
    """What the keeper, or Python itself, handles or ignores."""
    return {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE,
            signal.SIGXFSZ}  # fmt: skip
