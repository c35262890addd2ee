"""What keeps jobs apart on this node, found out by trying it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

from moorage.agent import peers
from moorage.agent.fsyncs import calls
from moorage.agent.keeper.cgroup import Cgroups, hierarchies, read_all
from moorage.agent.keeper.launching import may_mount
from moorage.agent.keeper.main import group_name
from moorage.agent.sandbox import mounting, view
from moorage.protocol.agent import Isolation

PROBE = "probe"
"""Name of a control group that is made to see whether that works."""


def probe(home: Path) -> Isolation:
    """The isolation that jobs of the agent in `home` (`$MOORAGE_HOME/agent`) get."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    mounts = _tried(_try_mounts)
    return Isolation(
        cgroup=_why_no_cgroup(home),
        mounts=mounts,
        user=user,
        containers=mounts or _tried(_try_overlay),
        devices=_why_no_devices(),
        ssh=peers.why_not(),
        fsync=calls.why_not() or _tried(_try_hold),
    )


def _why_no_cgroup(home: Path) -> str | None:
    if os.geteuid() != 0:
        return (
            "moorage runs without root, so a memory limit holds for each process alone and a CPU "
            "limit is not enforced; processes are found by descent when a job ends"
        )
    try:
        cgroups = Cgroups(group_name(str(home)))
        cgroups.existing(PROBE).remove()  # of an agent that was killed in here
        cgroups.make(PROBE, {"memory": 1 << 30, "cpus": 1, "pids": 100}).remove()
        cgroups.remove_idle()
    except (OSError, RuntimeError) as error:
        return (
            f"control groups cannot be used here ({error}), so a memory limit holds for each "
            "process alone and a CPU limit is not enforced"
        )
    return None


def _why_no_devices() -> str | None:
    said = "so a job is told which GPUs are its own, and not kept from the others"
    if os.geteuid() != 0:
        return f"moorage runs without root, {said}"
    if "devices" not in hierarchies(read_all("/proc/self/mountinfo")):
        return f"the control groups here have no devices controller (cgroup v1), {said}"
    return None


def _tried(work: Callable[[], str]) -> str | None:
    """What comes of it, or nothing, in a child: what it enters ends with it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, work().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        reason = pipe.read().decode()
    os.waitpid(pid, 0)
    return reason or None


def _try_mounts() -> str:
    """Why it does not work; nothing where it does."""
    try:
        _enter_namespace()
        view.Sandbox("/").enter([["tmpfs", "/tmp", 4096]])  # noqa: S108
    except (mounting.MountError, OSError) as error:
        why = " (see user.max_user_namespaces and AppArmor)" if os.geteuid() else ""
        return f"mount namespaces are not allowed here: {error}{why}; /tmp is shared"
    return ""


def _try_hold() -> str:
    try:
        os.close(calls.hold())
    except OSError as error:
        return f"the kernel holds no system calls: {error.strerror}"
    return ""


def _try_overlay() -> str:
    """Why no job can have a writable layer of its own over an image."""
    try:
        _enter_namespace()
        top = "/tmp"  # noqa: S108 (private from here on)
        view.Sandbox("/").enter([["tmpfs", top, 65536]])
        for name in ("lower", "upper", "work"):
            os.mkdir(f"{top}/{name}")  # noqa: PTH102
        options = f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work"
        options += ",userxattr" if os.geteuid() else ""
        mounting.mount("overlay", f"{top}/lower", "overlay", 0, options)
    except (mounting.MountError, OSError) as error:
        return f"containers cannot be started here: {error}"
    return ""


def _enter_namespace() -> None:
    if may_mount():
        mounting.unshare(mounting.CLONE_NEWNS)
    else:
        mounting.own_user_namespace()
