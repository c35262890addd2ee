"""A Docker daemon of a job's own, started in it before its commands. Standard library only (it
runs in the job).

The process that becomes the job's shell enters a network of its own first. A helper beside it
stays in the node's, where it starts slirp4netns, which leads from the one to the other without a
change of the node's firewall, and the daemon, which it puts into the job's network. All of it is
in the job's control groups and mount namespace, and goes with them.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys

from moorage.agent.sandbox import mounting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

PLACE = "/run/containerd"
"""Where containerd insists on making sockets: the job's own, in memory."""
SOCKET = f"{PLACE}/docker.sock"
HELPER = "helper"
"""File with the pid of the helper, in the attempt's directory."""
FAILED = 125
PATIENCE = 60.0
"""Seconds for the daemon to be there."""
_JOIN = "MOORAGE_JOIN"
_NODES = "/run/docker.sock"
_RESOLV = "/etc/resolv.conf"
_NAMESERVER = "nameserver 10.0.2.3\n"
"""Where slirp4netns answers."""
_CLONE_NEWNET = 0x40000000
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


class NoDaemon(Exception):
    """One line for the user."""


def main(directory: str, parent: str, *argv: str) -> NoReturn:
    """Have a daemon that puts its data below `directory`, the attempt's, and its containers into
    control groups below `parent`; then execute `argv`, a program by its path."""
    try:
        _own_group()
        _cover()
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            ours.close()
            _helper(theirs, directory, parent)
        theirs.close()
        mounting.unshare(_CLONE_NEWNET)
        ours.sendall(b"n")
        said = ours.makefile("rb").read().decode(errors="replace")
        if said != "ok":
            raise NoDaemon(said or "its helper was killed")
        os.execve(argv[0], list(argv), os.environ)
    except (NoDaemon, mounting.MountError, OSError) as error:
        sys.stderr.write(f"moorage: docker: {error}\n")
        sys.stderr.flush()
    os._exit(FAILED)


def _own_group() -> None:
    """On version 2, a group with processes of its own may have no limited ones below it: the
    containers' are beside that of the job's processes."""
    if join := os.environ.get(_JOIN):
        group = f"{os.path.dirname(join)}/engine"
        os.makedirs(group, exist_ok=True)
        os.environ[_JOIN] = f"{group}/cgroup.procs"
        with open(os.environ[_JOIN], "w") as file:
            file.write("0")


def _cover() -> None:
    """What the daemon would share with the node's, where that has one."""
    os.makedirs(PLACE, 0o711, exist_ok=True)
    mounting.mount("tmpfs", PLACE, "tmpfs", mounting.NOSUID, "mode=711")
    with open(f"{PLACE}/resolv.conf", "w") as file:
        file.write(_NAMESERVER)
    if os.path.exists(_RESOLV):
        mounting.mount(f"{PLACE}/resolv.conf", os.path.realpath(_RESOLV), None, mounting.BIND)
    if os.path.exists(_NODES):  # else who does not read DOCKER_HOST would talk to the node's
        with open(SOCKET, "w"):
            pass
        mounting.mount(SOCKET, _NODES, None, mounting.BIND)


def _helper(job: socket.socket, directory: str, parent: str) -> NoReturn:
    """Lives as long as what it has started."""
    try:
        os.setsid()
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        os.makedirs(f"{directory}/docker", 0o700, exist_ok=True)
        with open(f"{directory}/docker/{HELPER}", "w") as file:
            file.write(str(os.getpid()))
        log = os.open(f"{directory}/docker/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number in (1, 2):
            os.dup2(log, number)
        shell = os.getppid()
        if not job.recv(1):
            os._exit(0)
        _lead_out(shell)
        _start(shell, directory, parent)
        job.sendall(b"ok")
    except NoDaemon as error:
        job.sendall(f"{error} (see {directory}/docker/log on the node)".encode())
        os.killpg(0, signal.SIGKILL)
    except OSError as error:
        job.sendall(f"{error.filename or 'daemon'}: {error.strerror}".encode())
        os.killpg(0, signal.SIGKILL)
    job.close()
    _collect()
    os._exit(0)


def _collect() -> None:
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def _lead_out(shell: int) -> None:
    """From the job's network to the node's."""
    reader, writer = os.pipe()
    words = ["slirp4netns", "--configure", "--mtu=65520", f"--ready-fd={writer}", str(shell)]
    with subprocess.Popen([*words, "tap0"], pass_fds=[writer], stdin=subprocess.DEVNULL) as slirp:
        os.close(writer)
        ready = os.read(reader, 1) if select.select([reader], [], [], PATIENCE)[0] else b""
        os.close(reader)
        if not ready:
            raise NoDaemon("slirp4netns gives the job no network")
        slirp.returncode = 0  # it goes on, and is not to be waited for


def _start(shell: int, directory: str, parent: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notes:
        notes.bind(f"{PLACE}/notes")
        with open(f"{PLACE}/daemon.json", "w") as file:
            file.write("{}")
        words = ["dockerd", "--host", f"unix://{SOCKET}", "--exec-root", f"{PLACE}/docker"]
        words += ["--data-root", f"{directory}/docker/data", "--pidfile", f"{PLACE}/docker.pid"]
        words += ["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", parent]
        words += ["--config-file", f"{PLACE}/daemon.json"]
        env = {**os.environ, "NOTIFY_SOCKET": f"{PLACE}/notes"}
        env.pop("DOCKER_HOST", None)
        pid = os.fork()
        if pid == 0:
            _become(lambda: _enter_network(shell), words, env)
        died = os.pidfd_open(pid)
        ready = select.select([notes.fileno(), died], [], [], PATIENCE)[0]
        if notes.fileno() not in ready or b"READY=1" not in notes.recv(4096):
            raise NoDaemon("dockerd does not start")


def _become(before: Callable[[], None], words: list[str], env: dict[str, str]) -> NoReturn:
    try:
        before()
        os.execvpe(words[0], words, env)
    except (OSError, mounting.MountError) as error:
        sys.stderr.write(f"{words[0]}: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(FAILED)


def _enter_network(pid: int) -> None:
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    mounting.enter(network, _CLONE_NEWNET)
