"""Asking a vendor's program: with a deadline that holds, whatever the driver does to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from moorage.agent.gpus.base import Unreadable

_LAST_WORD = 1.0
"""Seconds in which a killed program must be gone; one that the driver holds is left behind."""
_ELSEWHERE = ("/opt/rocm/bin", "/opt/intel/xpumanager/bin")


def which(name: str) -> str | None:
    """Where the program is: on PATH, or where its vendor puts it."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_ELSEWHERE))


def ask(words: Sequence[str], seconds: float, name: str = "") -> str:
    """What it prints. Unreadable, with its `name`, when it fails or has not ended in time."""
    name = name or Path(words[0]).name
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise Unreadable(f"{name} cannot be started: {error.strerror}") from None
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _give_up(process)
        raise Unreadable(f"{name} did not answer within {seconds:g} s") from None
    if process.returncode != 0:
        said = first_line(errors) or first_line(output)
        why = f": {said}" if said else ""
        raise Unreadable(f"{name} failed with exit code {process.returncode}{why}")
    return output.decode(errors="replace")


def ask_json(words: Sequence[str], seconds: float) -> Any:
    """The JSON that it prints. Unreadable."""
    text = ask(words, seconds)
    # Some print a warning or two before it.
    begins = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    try:
        return json.loads(text[min(begins, default=0) :])
    except ValueError:
        raise Unreadable(f"{Path(words[0]).name} printed no JSON") from None


def first_line(output: bytes) -> str:
    """The first line that says something, shortened."""
    for line in output.decode(errors="replace").splitlines():
        if text := " ".join(line.split()):
            return text[:200]
    return ""


def _give_up(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_LAST_WORD)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
