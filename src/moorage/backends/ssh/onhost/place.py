"""Where an agent lives on its host, and what there is of one.

<directory>/versions/<digest>/lib   our package and what it needs, as installed
<directory>/current                 a link to one of the versions
<directory>/plan.json               what is to run: node, servers, options, digest, python
<directory>/authority.pem           whose certificates servers show, if not one of the system's
<directory>/address                 through a tunnel: where the server is at present
<directory>/home/agent              claims, logs, keeper, token
<directory>/lock                    held by whoever changes any of this
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SYSTEM = "/var/lib/moorage"
PLAN, ADDRESS, CURRENT, HOME = "plan.json", "address", "current", "home"
AUTHORITY = "authority.pem"


def directory(server: str, privilege: str) -> str:
    """Of the agent of that server."""
    if privilege:
        return "%s/%s" % (SYSTEM, server)
    return str(Path("~/.moorage/nodes").expanduser() / server)


def read(path: str) -> str:
    """A small file; empty where it cannot be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def state(directory: str) -> dict[str, Any]:
    """`installed` and `running`: digests, empty where there is none; whose agent it is, what it
    dials, and what it was told."""
    try:
        current = os.readlink(directory + "/" + CURRENT)
    except OSError:
        current = ""
    digest = os.path.basename(current)
    known = plan(directory)
    return {
        "installed": digest,
        "running": running(directory),
        "node": known.get("node", ""),
        "dials": known.get("urls", []),
        "options": known.get("options", []),
    }


def running(directory: str) -> str:
    """The digest of the agent that runs there, by the arguments of the process that holds its
    lock."""
    pid = holder(directory + "/home/agent/lock")
    for word in read("/proc/%d/cmdline" % pid).split("\0") if pid else []:
        found = Path(word)
        if found.parent.parent.name == "versions" and found.name == "lib":
            return found.parent.name
    return ""


def holder(path: str) -> int:
    """The process that holds a lock and wrote its number there; 0 where nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(descriptor, 32, 0).split()
        return int(text[0]) if text and text[0].isdigit() else 0
    finally:
        os.close(descriptor)
    return 0


def commands() -> list[str]:
    """The command lines of all processes that may be seen."""
    return [read("/proc/%s/cmdline" % name) for name in os.listdir("/proc") if name.isdigit()]


def plan(directory: str) -> dict[str, Any]:
    """What is to run there; empty where nothing is."""
    try:
        found = json.loads(read(directory + "/" + PLAN) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def write(path: str, text: str) -> None:
    """A file with this content, all or nothing, which only its owner may read."""
    partial = "%s.%d" % (path, os.getpid())
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Be the only one who changes something there; waits for others."""
    Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory + "/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def group_name(home: str) -> str:
    """What the agent in `home` calls its control groups; as in `moorage.agent.keeper.main`.
    No group's name where there is no home."""
    try:
        there = os.stat(home)
    except FileNotFoundError:
        return "none"
    path = "%s@%x:%x" % (os.path.realpath(home), there.st_dev, there.st_ino)
    return "%d-%08x" % (os.geteuid(), zlib.crc32(os.fsencode(path)))


def user_bus() -> dict[str, str]:
    """The environment with which `systemctl --user` finds its manager from an ssh session."""
    runtime = "/run/user/%d" % os.geteuid()
    return {**os.environ, "XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR", runtime)}
