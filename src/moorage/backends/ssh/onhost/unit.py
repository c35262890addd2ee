"""A systemd unit for an agent, the system's or the user's."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from pathlib import Path

from moorage.backends.ssh.onhost import place

_TEXT = """\
[Unit]
Description=moorage node {node}
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart={command}
Restart=always
RestartSec=1
KillMode=process
Delegate=yes
OOMPolicy=continue
StandardOutput=journal
StandardError=journal

[Install]
WantedBy={target}
"""
_PATIENCE = 60.0


def name(directory: str) -> str:
    """Of the unit: one for each server's agent."""
    return "moorage-%s.service" % os.path.basename(directory)


def text(node: str, init: str, command: list[str]) -> str:
    """The unit's file. Only the agent's own process is ended with it: the keeper and the jobs go
    on."""
    words = " ".join(shlex.quote(word).replace("%", "%%").replace("$", "$$") for word in command)
    target = "multi-user.target" if init == "system" else "default.target"
    return _TEXT.format(node=node, command=words, target=target)


def path(directory: str, init: str) -> Path:
    """Where its file is."""
    if init == "system":
        return Path("/etc/systemd/system", name(directory))
    return Path("~/.config/systemd/user").expanduser() / name(directory)


def start(directory: str, init: str, node: str, command: list[str]) -> None:
    """Write and start it, now and at each boot. RuntimeError."""
    file = path(directory, init)
    file.parent.mkdir(parents=True, exist_ok=True)
    place.write(str(file), text(node, init, command))
    _control(init, "daemon-reload")
    _control(init, "enable", "--quiet", file.name)
    _control(init, "restart", file.name)


def journal(directory: str, init: str) -> str:
    """What it said last."""
    user = init == "user"
    # First what its own processes said, then what systemd says of them.
    for which in (
        ("_SYSTEMD_USER_UNIT=" if user else "_SYSTEMD_UNIT=") + name(directory),
        ("--user-unit=" if user else "--unit=") + name(directory),
    ):
        done = subprocess.run(
            ["journalctl", which, "--lines=20", "--output=cat", "--quiet"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
        )
        if done.stdout.strip():
            break
    return done.stdout.decode(errors="replace")


def active(directory: str, init: str) -> bool:
    """Whether systemd keeps it."""
    return _run(init, "is-active", "--quiet", name(directory))[0] == 0


def stop(directory: str, init: str) -> None:
    """Stop and forget it, where there is one. RuntimeError."""
    for kind in dict.fromkeys([init, "system" if os.geteuid() == 0 else "user"]):
        if not kind or not path(directory, kind).exists():
            continue
        if os.path.isdir("/run/systemd/system"):
            _control(kind, "disable", "--quiet", "--now", name(directory))
        with contextlib.suppress(FileNotFoundError):
            path(directory, kind).unlink()
        if os.path.isdir("/run/systemd/system"):
            _control(kind, "daemon-reload")


def _control(init: str, *words: str) -> None:
    status, said = _run(init, *words)
    if status:
        raise RuntimeError(
            "systemctl %s failed: %s" % (words[0], said), "see journalctl -xe there"
        )


def _run(init: str, *words: str) -> tuple[int, str]:
    manager = ["--user"] if init == "user" else []
    done = subprocess.run(
        ["systemctl", *manager, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=place.user_bus(),
        timeout=_PATIENCE,
    )
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    return done.returncode, lines[-1] if lines else ""
