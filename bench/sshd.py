"""A private sshd on 127.0.0.1, for what is compared with tools that go over ssh."""

from __future__ import annotations

import contextlib
import getpass
import os
import select
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

_PATIENCE = 10.0
_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
PidFile none
StrictModes no
PasswordAuthentication no
UsePAM no
LogLevel INFO
"""


def lacking() -> str:
    """Why there can be no sshd here; empty where there can."""
    for program in ("ssh", "ssh-keygen"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return "" if _program() else "sshd is not installed"


def _program() -> str | None:
    return shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")


@contextlib.contextmanager
def running(directory: Path) -> Iterator[list[str]]:
    """The ssh command that reaches it, host name included as the last word; keys of its own are
    made in `directory`."""
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
        subprocess.run(key, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = directory / "sshd_config"
    config.write_text(_CONFIG.format(port=port, directory=directory))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd, as root, locks itself in
    command = [_program() or "sshd", "-D", "-e", "-f", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as server:
        try:
            assert server.stderr is not None
            if not select.select([server.stderr], [], [], _PATIENCE)[0]:
                raise RuntimeError("sshd does not start")
            first = server.stderr.readline().decode()
            if "listening" not in first:
                raise RuntimeError(f"sshd does not start: {first.strip()}")
            options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
            options += ["LogLevel=ERROR", "IdentitiesOnly=yes"]
            flags = [word for option in options for word in ("-o", option)]
            key = str(directory / "user")
            login = ["-p", str(port), "-i", key, "-l", getpass.getuser()]
            yield ["ssh", "-F", "none", *flags, *login, "127.0.0.1"]
        finally:
            server.terminate()
            server.stderr.close()
