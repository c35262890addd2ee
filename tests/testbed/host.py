"""One host of a bed, as tests use it."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from testbed.shape import Shape
from testbed.switch import Endpoint

PATIENCE = 60.0


class Host(Endpoint):
    """Where to reach a host, and how to look into it. What can happen to it is the bed's."""

    def __init__(self, endpoint: Endpoint, shape: Shape, keys: Path, disk: Path) -> None:
        super().__init__(endpoint.name, endpoint.address, endpoint.port)
        self.shape = shape
        self.disk = disk
        """What the host has written, as a directory; there also while the host is down."""
        self.groups: list[Path] = []
        self.outer = 0
        """A process outside of the host's process namespace that ends with it; 0: it is down."""
        self._keys = keys

    @property
    def user(self) -> str:
        """Who logs in."""
        return self.shape.user

    @property
    def up(self) -> bool:
        return bool(self.outer)

    @property
    def pid(self) -> int:
        """The host's process 1, as this machine counts."""
        assert self.outer, f"{self.name} is down"
        return int(Path(f"/proc/{self.outer}/task/{self.outer}/children").read_text())

    def ssh_config(self, path: Path) -> Path:
        """Write a configuration for `ssh -F` that knows this host by name and by address."""
        path.write_text(self.ssh_entry())
        return path

    def ssh_entry(self) -> str:
        return (
            f"Host {self.name} {self.address}\n  HostName {self.address}\n  User {self.user}\n"
            f"  IdentityFile {self._keys / 'key'}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self._keys / 'known_hosts'}\n  GlobalKnownHostsFile none\n"
            "  StrictHostKeyChecking yes\n  BatchMode yes\n  ConnectTimeout 60\n"
        )

    def run(
        self, *argv: str, check: bool = True, timeout: float = PATIENCE, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command by ssh as `user`, with `text` as its input. AssertionError where it
        fails and `check` is set."""
        command = ["ssh", "-F", str(self._keys / "ssh_config"), self.name, shlex.join(argv)]
        return _run(command, text, check, timeout)

    def inside(
        self, *argv: str, check: bool = True, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host as root without its network or sshd: also where it is cut."""
        join = 'for g in $1; do echo 0 >"$g/cgroup.procs"; done; shift; exec "$@"'
        groups = [path / "init" if (path / "init").exists() else path for path in self.groups]
        enter = ["nsenter", f"--target={self.pid}", "--all", "--root", "--wd", "--"]
        command = ["sh", "-euc", join, "sh", " ".join(map(str, groups)), *enter, *argv]
        return _run(command, "", check, timeout)


def _run(
    command: list[str], text: str, check: bool, timeout: float
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=timeout, check=False
    )
    if check:
        assert done.returncode == 0, f"{command[-1]}: {done.returncode}: {done.stderr}"
    return done
