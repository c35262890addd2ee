"""Work on the files of a server that does not run, done by a process of the server's side."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import msgspec

from moorage.cli import autostart
from moorage.errors import InvalidInput, MoorageError, Problem

T = TypeVar("T")


def call(home: Path, what: str, reply: type[T], *arguments: str) -> T:
    """Run it and decode what it says. InvalidInput or MoorageError with its own words."""
    command = [sys.executable, "-X", "utf8", "-m", "moorage.server.offline", what]
    done = subprocess.run(
        [*command, "--home", str(home), *arguments], capture_output=True, check=False
    )
    if done.returncode == 0:
        return msgspec.json.decode(done.stdout, type=reply)
    lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it ended silently"]
    if done.returncode == InvalidInput.exit_code:
        raise InvalidInput(*lines)
    raise MoorageError(lines[-1])


def require_stopped(home: Path, why: str) -> None:
    """InvalidInput while a server runs for this home."""
    address = autostart.running(home)
    if address is not None:
        raise InvalidInput(
            Problem(f"{why} while a server runs on {address.place}", "moorage server stop")
        )
