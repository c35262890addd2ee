"""Containers by Apptainer, from the directory into which moorage has unpacked the image, or from
an image file as it lies. Written from Apptainer's documentation; a stand-in takes its place in
tests.

Apptainer makes no control groups and starts the job's program as its own child: what holds for
processes holds for its containers.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from moorage.agent.containers import engines
from moorage.agent.containers.engines import Plan
from moorage.agent.images.store import Image
from moorage.agent.process import ProcessError
from moorage.protocol.agent import Launch

_HOME = 'HOME=$1; export HOME; shift; exec "$@"'
"""Apptainer lets no option set this variable."""
_OWN_ACCOUNT = (
    "user: apptainer runs every job as the agent's account; leave it out, or let the fleet's "
    "engines name another"
)
_LOST = (
    "sys_module,sys_rawio,sys_ptrace,sys_pacct,sys_admin,sys_boot,sys_nice,sys_resource,sys_time,"
    "sys_tty_config,mknod,audit_control,mac_admin,mac_override,syslog,linux_immutable,net_admin,"
    "dac_read_search,ipc_lock,ipc_owner,lease,wake_alarm,block_suspend"
)
_CAPABILITIES = ",".join(f"CAP_{name.upper()}" for name in _LOST.split(","))
"""What a container of root is to do without, unless it is privileged."""


class Apptainer:
    """For the agent in `home` (`$MOORAGE_HOME/agent`)."""

    name = "apptainer"
    joins = True

    def __init__(self, home: Path) -> None:
        self._home = home

    def why_not(self) -> str:
        """One container of the node's own programs."""
        if engines.installed(self.name) is None:
            return "apptainer is not installed"
        with tempfile.TemporaryDirectory(prefix="apptainer-", dir=self._home) as empty:
            words = [*self._common([], False), "--no-mount", "bind-paths"]
            for path in filter(os.path.isdir, engines.PROGRAMS):
                words += ["--bind", f"{path}:{path}:ro"]
            code, said = engines.ask([*words, empty, "/usr/bin/env", "true"])
        return f"apptainer cannot start containers here: {said}" if code else ""

    def problem(self, launch: Launch) -> str:
        box = launch.container
        user = box.user if box is not None else None
        if user is not None and user.partition(":")[0] not in self._accounts():
            return _OWN_ACCOUNT
        return ""

    def take(self, image: Image, tell: Callable[[str], None]) -> None:
        """It runs directories and files as they are."""

    def command(self, plan: Plan) -> list[str]:
        if os.geteuid() == 0 and (plan.account.uid or plan.account.gid):
            raise ProcessError(_OWN_ACCOUNT)
        variables = plan.place / "environment"
        _write(variables, plan.env)
        words = [*self._common(plan.devices, plan.privileged), *self._layer(plan)]
        words += ["--env-file", str(variables), "--pwd", plan.cwd]
        memory = plan.place / "shm"
        memory.mkdir(mode=0o1777, exist_ok=True)
        binds = [(str(memory), "/dev/shm", False), *plan.binds]  # noqa: S108 (the container's)
        if plan.privileged:
            binds.insert(0, ("/dev", "/dev", False))
        for source, target, read_only in binds:
            words += ["--bind", _bind(source, target, read_only)]
        argv = list(plan.argv)
        root = plan.image.root
        if root is None or (root / "bin/sh").is_symlink() or (root / "bin/sh").exists():
            argv = ["/bin/sh", "-c", _HOME, "sh", plan.env["HOME"], *argv]
        return [*words, str(plan.image.file or root), *argv]

    def remove(self, directory: Path) -> str:
        """All that it makes is in the attempt's directory."""
        return ""

    def tidy(self, roots: Path) -> None:
        """It has no images."""

    def _common(self, devices: Sequence[str], privileged: bool) -> list[str]:
        """What holds for every container: nothing of the node's files, home and variables is in
        it; it sees the node's network and processes, as those that moorage starts itself."""
        words = [self.name, "--silent", "exec", "--contain", "--cleanenv", "--no-home"]
        words += ["--nv"] if any("nvidia" in device for device in devices) else []
        words += ["--rocm"] if any(device.startswith("/dev/kfd") for device in devices) else []
        if os.geteuid() == 0 and not privileged:
            words += ["--drop-caps", _CAPABILITIES]
        return words

    def _layer(self, plan: Plan) -> list[str]:
        """The writable layer: on the node's disk as root, else in memory, which needs nothing."""
        if os.geteuid() != 0:
            return ["--writable-tmpfs"]
        layer = plan.place / "layer"
        for name in ("upper", "work"):
            (layer / name).mkdir(parents=True, exist_ok=True)
        return ["--overlay", str(layer)]

    def _accounts(self) -> tuple[str, ...]:
        return ("root", "0") if os.geteuid() == 0 else ("root", "0", str(os.geteuid()))


def _bind(source: str, target: str, read_only: bool) -> str:
    """ProcessError: what Apptainer cannot be told."""
    if any(mark in f"{source}{target}" for mark in ":,"):
        raise ProcessError(f"{target}: apptainer cannot mount paths with ':' or ','")
    return f"{source}:{target}{':ro' if read_only else ''}"


def _write(path: Path, env: dict[str, str]) -> None:
    """As a shell reads it, which is how Apptainer does."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    lines = (f"{name}={shlex.quote(text)}\n" for name, text in env.items() if name != "HOME")
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write("".join(lines).encode(errors="surrogateescape"))
