"""Work on the files of a server that does not run, done by a process of the server's side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TypeVar

from moorage.cli import autostart
from moorage.cli.lasting import OnProgress, decoded
from moorage.errors import InvalidInput, MoorageError, Problem

T = TypeVar("T")


def call(home: Path, what: str, reply: type[T], on_progress: OnProgress, *arguments: str) -> T:
    """Run it and decode what it says. InvalidInput or MoorageError with its own words."""
    command = [sys.executable, "-P", "-X", "utf8", "-m", "moorage.server.offline", what]
    command += ["--home", str(home), *arguments]
    notes = os.dup(2)
    command += ["--notes-fd", str(notes)]
    with (
        os.fdopen(notes, "wb"),
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=complaints, pass_fds=[notes]
        ) as process,
    ):
        assert process.stdout is not None
        found = None
        for line in process.stdout:
            found = decoded(line, reply, on_progress)
        code = process.wait()
        complaints.seek(0)
        lines = complaints.read().decode(errors="replace").strip().splitlines()
    if code == 0 and found is not None:
        return found
    if code == InvalidInput.exit_code:
        raise InvalidInput(*lines)
    if code < 0:
        died = signal.Signals(-code).name
        raise MoorageError(f"its process was killed ({died}) before it was done: run it again")
    raise MoorageError((lines or ["it ended silently"])[-1])


def require_stopped(home: Path, why: str) -> None:
    """InvalidInput while a server runs for this home."""
    address = autostart.running(home)
    if address is not None:
        raise InvalidInput(
            Problem(f"{why} while a server runs on {address.place}", "moorage server stop")
        )
