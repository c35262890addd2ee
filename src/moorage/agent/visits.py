"""The keeper's part when somebody looks into a job: it starts the process that does it, which is
then its child, as all of the job are. Standard library only (keeper)."""

from __future__ import annotations

import json
import os
import signal
import sys

from moorage.agent import family, spawning
from moorage.agent.job import Job
from moorage.agent.keeperloop import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DEFAULTS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE,
             signal.SIGXFSZ)  # fmt: skip
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from moorage.agent.{module} import main; main(*sys.argv[2:])"
)


def begin(job: Job | None, directory: str, name: str) -> dict[str, Any]:
    """Start it; it connects to the socket `name` in `directory`. The answer to the agent."""
    if job is None or job.state != "running":
        return {"error": "the job's process does not run", "step": "enter"}
    return _start(job, "visit", directory, name)


def open_gate(job: Job, output: str) -> None:
    """Let the other ranks of the job in for as long as it runs; `output` of the job is told what
    is wrong."""
    started = _start(job, "gate", output)
    if "error" in started:
        say(f"{job.key}: no ssh between ranks: {started['error']}")


def _start(job: Job, module: str, *arguments: str) -> dict[str, Any]:
    told = {
        "key": job.key,
        "pid": job.pid,
        "start": family.start_time(job.pid),
        "groups": job.group.directories if job.group is not None else [],
        "cwd": job.cwd,
        "directory": job.directory,
    }
    words = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT.format(module=module)]
    # By the marker it is swept up with the job, should it hang.
    env = {family.MARKER: job.mark, "PATH": os.defpath}
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        files = [null, null, 2]  # its last words go to the keeper's log
        words += [sys.path[0], *arguments, json.dumps(told)]
        pid = spawning.spawn(words, env, files, _DEFAULTS)
    except OSError as error:
        return {"error": f"cannot start a process: {error.strerror}", "step": "enter"}
    finally:
        os.close(null)
    return {"pid": pid}
