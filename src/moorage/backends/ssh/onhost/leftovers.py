"""Leave nothing of an agent: its keeper, what that runs, mounts and control groups."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from moorage.backends.ssh.onhost import place

_PATIENCE = 20.0
_PROCS = "cgroup.procs"


def end(pid: int, number: int, patience: float) -> None:
    """Signal a process and wait for its end; SIGKILL where it does not come. 0: nobody."""
    if not pid:
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for sign in (number, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
            if select.select([descriptor], [], [], patience)[0]:
                return
    finally:
        os.close(descriptor)


def remove(directory: str) -> None:
    """All but the files, of which an agent does not run any more."""
    home = directory + "/home/agent"
    _dismiss(home)
    end(place.holder(home + "/keeper.pid"), signal.SIGTERM, _PATIENCE)
    for pid in _strays(directory):
        end(pid, signal.SIGKILL, _PATIENCE)
    for point in _mounts(directory):
        subprocess.run(["umount", "-l", point], stderr=subprocess.DEVNULL)
    # What is mounted is not ours to remove: it may be a user's data.
    for point in _mounts(directory):
        raise RuntimeError(point + " cannot be unmounted", "unmount it there, then try again")
    if os.path.exists(home + "/docker"):
        _empty_docker("label=moorage.agent=" + place.group_name(home))
    for top in ("/run", "/tmp"):  # noqa: S108 (only what is this account's alone)
        _forget_podman("%s/moorage-%s" % (top, place.group_name(home)))
    _remove_groups(home)


def _empty_docker(label: str) -> None:
    """A daemon keeps what it was given elsewhere; one that is away or silent keeps it for good."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        for listed, gone in (
            (["ps", "--all", "--quiet"], ["rm", "--force", "--volumes"]),
            (["images", "--quiet", "--no-trunc"], ["image", "rm", "--force"]),
        ):
            words = ["docker", *listed, "--filter", label]
            found = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE)
            names = dict.fromkeys(found.stdout.split())
            if names:
                words = ["docker", *gone, *names]
                subprocess.run(words, capture_output=True, timeout=_PATIENCE)


def _forget_podman(transient: str) -> None:
    """What it keeps until the next boot, and the process that holds its account's namespace."""
    if not os.path.isdir(transient) or os.lstat(transient).st_uid != os.geteuid():
        return
    pause = place.read(transient + "/libpod/tmp/pause.pid").strip()
    command = place.read("/proc/%s/cmdline" % pause) if pause.isdigit() else ""
    if "catatonit" in command or "podman" in command:
        end(int(pause), signal.SIGTERM, 1.0)
    shutil.rmtree(transient, ignore_errors=True)


def _dismiss(home: str) -> None:
    """Let the keeper kill its jobs, as it knows best how, and forget them."""
    if not place.holder(home + "/keeper.pid"):
        return
    with contextlib.suppress(OSError, ValueError), _connected(home) as stream:
        _say(stream, 1, op="list")
        running = {job["key"] for job in _hear(stream, "running")["running"]}
        for number, key in enumerate(running, 2):
            _say(stream, number, op="stop", key=key, grace=0, cause="aborted")
        while running:
            running.discard(_hear(stream, "event")["key"])


@contextlib.contextmanager
def _connected(home: str) -> Any:
    descriptor = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as keeper:
            keeper.settimeout(_PATIENCE)
            keeper.connect("/proc/self/fd/%d/keeper.sock" % descriptor)
            with keeper.makefile("rwb") as stream:
                yield stream
    finally:
        os.close(descriptor)


def _say(stream: Any, number: int, **request: Any) -> None:
    stream.write(json.dumps({"id": number, **request}).encode() + b"\n")
    stream.flush()


def _hear(stream: Any, field: str) -> dict[str, Any]:
    """The next message with that field. OSError where none comes."""
    for line in stream:
        message: dict[str, Any] = json.loads(line)
        if field in message:
            return message
    raise OSError("the keeper hung up")


def _strays(directory: str) -> list[int]:
    """Processes that were started from there or work there, but for us and those above us."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        command = place.read("/proc/%s/cmdline" % name).split("\0")
        try:
            where = os.readlink("/proc/%s/cwd" % name)
        except OSError:
            where = ""
        ours = any(word.startswith(directory + "/versions/") for word in command)
        if ours or (where + "/").startswith(directory + "/"):
            found.append(int(name))
    return found


def _mounts(directory: str) -> list[str]:
    """Mount points below it, the innermost first."""
    points = [
        line.split(" ")[4].encode().decode("unicode_escape")
        for line in place.read("/proc/self/mountinfo").splitlines()
    ]
    return sorted((p for p in points if p.startswith(directory + "/")), key=len, reverse=True)


def _remove_groups(home: str) -> None:
    """Control groups of its jobs, in each hierarchy: `moorage/<agent>/<key>`."""
    name = place.group_name(home)
    for line in place.read("/proc/self/mountinfo").splitlines():
        if " - cgroup" not in line:
            continue
        top = Path(line.split(" ")[4].encode().decode("unicode_escape"), "moorage", name)
        for path in sorted(top.glob("**/"), reverse=True) if top.is_dir() else ():
            for pid in place.read(str(path / _PROCS)).split():
                end(int(pid), signal.SIGKILL, _PATIENCE)
            with contextlib.suppress(OSError):
                path.rmdir()
        with contextlib.suppress(OSError):
            top.parent.rmdir()
