"""What a host has and what will not work there."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from moorage.backends.ssh.connection import Connection
from moorage.backends.ssh.interface import Cannot, HostFacts, PythonFound
from moorage.backends.ssh.program import Program
from moorage.decoding import converted

CHECK = Program("check", ("place",))
WANTED = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The compiled parts of our bundle are for this Python only."""
CANDIDATES = (
    f"python{WANTED}",
    *(f"python3.{minor}" for minor in (13, 12, 11, 10, 9, 8, 7) if f"3.{minor}" != WANTED),
    "python3",
)
CLOCK_TOLERANCE = 2.0
"""Seconds from which a clock is worth a word: logs and leases of several hosts are compared."""
ROOM = 256 * 1024 * 1024
"""Bytes below which an agent is not installed: itself, its logs and something to fetch into."""


async def check(
    connection: Connection, server: str, urls: Sequence[str], authority: str = ""
) -> HostFacts:
    """See `Host.check`. `server` is the id of the server whose agent it is about."""
    began = time.time()
    found = await connection.call(
        CHECK,
        {
            "server": server,
            "urls": list(urls),
            "authority": authority,
            "python": list(sys.version_info[:2]),
        },
        pythons=CANDIDATES,
        privilege="any",
    )
    return facts(found, began, time.time())


def facts(found: dict[str, Any], began: float, ended: float) -> HostFacts:
    """From what the program answered to a question between these times of ours."""
    offset, error = clock(began, ended, *found.pop("time"))
    gpus = found.pop("gpus")
    pythons = tuple(converted(one, PythonFound) for one in found["pythons"])
    given = {
        **found,
        "pythons": pythons,
        "clock_offset": offset,
        "clock_error": error,
    }
    known = converted(given, HostFacts)
    return msgspec.structs.replace(known, cannot=tuple(lacks(known, gpus)))


def clock(began: float, ended: float, there: float, later: float) -> tuple[float, float]:
    """Offset and its error from four times in the order ours, theirs, theirs, ours: as if the way
    there and back had taken the same time."""
    offset = ((there - began) + (later - ended)) / 2
    return offset, max(0.0, ((ended - began) - (later - there)) / 2)


def lacks(known: HostFacts, gpus: bool) -> list[Cannot]:
    """What will not work there, the worst first. `gpus`: there are devices of some."""
    found = []
    if not known.python:
        have = ", ".join(".".join(map(str, p.version)) for p in known.pythons) or "none"
        found.append(
            Cannot(
                "agent",
                f"the server's agent needs Python {WANTED}, the host has {have}",
                f"install python{WANTED} there (the same as the server's)",
            )
        )
    if known.disk_free < ROOM:
        free = known.disk_free // (1024 * 1024)
        found.append(
            Cannot(
                "agent",
                f"{known.directory} has {free} MiB free of {ROOM // 1024**2} needed",
                "make space on that filesystem",
            )
        )
    if not known.privilege:
        found.append(_no_root(known))
    if not known.cgroups or not known.cgroups_writable:
        found.append(
            Cannot(
                "cgroups",
                "memory and CPU limits do not hold for whole jobs there",
                "log in as root or allow sudo without a password"
                if not known.privilege
                else "mount the cgroup filesystem writable",
            )
        )
    if not known.mount_namespaces:
        found.append(
            Cannot(
                "mounts",
                "jobs share /tmp, and nothing can be mounted for them",
                "allow user namespaces (user.max_user_namespaces) or log in as root",
            )
        )
    return found + _smaller(known, gpus)


def _no_root(known: HostFacts) -> Cannot:
    return Cannot(
        "root",
        f"{known.user} is not root and sudo wants a password, so jobs run as {known.user}",
        "allow sudo without a password if that is not meant",
    )


def _smaller(known: HostFacts, gpus: bool) -> list[Cannot]:
    found = []
    if not known.init:
        enable = f" (or `loginctl enable-linger {known.user}`)" if not known.privilege else ""
        found.append(
            Cannot(
                "supervision",
                "no systemd starts the agent after a reboot there; the server does, by ssh",
                f"nothing need be done{enable}",
            )
        )
    if not known.engines:
        found.append(
            Cannot("containers", "there is no container engine", "install podman or docker")
        )
    if gpus and not known.gpu_tools:
        found.append(
            Cannot("gpus", "there are GPUs, but no vendor's tool answers", "install the driver")
        )
    if abs(known.clock_offset) - known.clock_error > CLOCK_TOLERANCE:
        late = "behind" if known.clock_offset < 0 else "ahead"
        found.append(
            Cannot(
                "clock",
                f"its clock is {abs(known.clock_offset):.1f} s {late} of the server's",
                "let chrony or systemd-timesyncd run there",
            )
        )
    return found
