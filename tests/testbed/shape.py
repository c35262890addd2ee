"""What a host of a bed is like."""

from __future__ import annotations

from dataclasses import dataclass

ACCOUNT = "ada"
"""The ordinary account of every host, with the same key as root."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse", "net/tun")


@dataclass(frozen=True)
class Shape:
    """Options of one host; sizes in bytes."""

    user: str = "root"
    """Who `ssh` logs in as: "root" or "ada"."""
    sudo: bool = False
    """Whether ada may use sudo, without a password."""
    python: bool = True
    """False: no Python of the system can be found."""
    checkout: bool = False
    """True: the developer's tree with its .venv, and the interpreter behind it, read-only at their
    own places. False: an empty directory there, so that an installed agent cannot use it."""
    disk: int = 2 << 30
    """Size of what the host may write outside of /tmp, /run and /dev/shm; kept over `kill`."""
    free: int | None = None
    """How much of that is left at first; None: all."""
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    systemd: bool = False
    """Process 1 is systemd, with sshd as its only service; such a host needs seconds to boot."""
    devices: tuple[str, ...] = ()
    """More device nodes to have, such as "/dev/loop-control"."""
