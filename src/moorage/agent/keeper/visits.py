"""The keeper's part when somebody looks into a job: it starts the process that does it, which is
then its child, as all of the job are. Standard library only (keeper)."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback

from moorage.agent.keeper import family, spawning
from moorage.agent.keeper.job import Job
from moorage.agent.keeper.loop import say
from moorage.agent.visits import contained, visit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_DEFAULTS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE,
             signal.SIGXFSZ)  # fmt: skip
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from moorage.agent.visits.{module} import main; main(*sys.argv[2:])"
)


def begin(job: Job | None, directory: str, name: str) -> dict[str, Any]:
    """Start it; it connects to the socket `name` in `directory`. The answer to the agent."""
    if job is None or job.state != "running":
        return {"error": "the job's process does not run", "step": "enter"}
    told = _told(job)
    return told if "error" in told else _held(job, lambda: _fork(told, directory, name))


def open_gate(job: Job, output: str) -> int:
    """Let the other ranks of the job in for as long as it runs; `output` of the job is told what
    is wrong. The process that does it; 0 for none."""
    started = _start(job, "gate", output)
    if "error" in started:
        say(f"{job.key}: no ssh between ranks: {started['error']}")
        return 0
    return int(started["pid"])


def _start(job: Job, module: str, *arguments: str) -> dict[str, Any]:
    told = _entrance(job, job.pid)
    if job.engine is not None:
        # Its container takes a while: whoever is started here waits for it.
        groups = [] if job.group is None else job.group.directories
        told |= {"groups": groups, "engine": True}
    words = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT.format(module=module)]
    # By the marker it is swept up with the job, should it hang.
    env = {family.MARKER: job.mark, "PATH": os.defpath}
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        files = [null, null, 2]  # its last words go to the keeper's log
        # Everybody can read the words; the variables may be secret.
        words += [sys.path[0], *arguments, json.dumps(told | {"variables": ""})]
        pid = _held(job, lambda: spawning.spawn(words, env, files, _DEFAULTS))
    except OSError as error:
        return {"error": f"cannot start a process: {error.strerror}", "step": "enter"}
    finally:
        os.close(null)
    return {"pid": pid}


def _held(job: Job, work: Callable[[], Any]) -> Any:
    """What it starts is to wait for uploads where the job does."""
    return work() if job.clerk is None else job.clerk.beside(work)


def _fork(told: dict[str, Any], directory: str, name: str) -> dict[str, Any]:
    """A visit takes 30 ms less without an interpreter of its own."""
    # A signal for the child before its handlers are reset would wake the parent's loop.
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _visit(told, directory, name)
    except OSError as error:
        return {"error": f"cannot start a process: {error.strerror}", "step": "enter"}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    return {"pid": pid}


def _visit(told: dict[str, Any], directory: str, name: str) -> NoReturn:
    """What the fork does."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in _DEFAULTS:
            signal.signal(number, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        visit.main(directory, name, told)
    except Exception:
        traceback.print_exc()  # to the keeper's log
    finally:
        os._exit(1)


def _told(job: Job) -> dict[str, Any]:
    """What it needs to know, or an error."""
    pid = job.pid if job.engine is None else _contained(job)
    if not pid:
        return {"error": "its container has not started yet", "step": "enter"}
    return _entrance(job, pid)


def _entrance(job: Job, pid: int) -> dict[str, Any]:
    """The way in by this process."""
    groups = job.group.directories if job.group is not None else []
    return {
        "key": job.key,
        "pid": pid,
        "start": family.start_time(pid),
        "groups": contained.joined(groups, pid) if job.nests else groups,
        "cwd": job.cwd if job.engine is None else job.engine["cwd"],
        "directory": job.directory,
        "variables": job.variables if job.engine is None else "",
    }


def _contained(job: Job) -> int:
    """The first process of the container that an engine has made for the job; 0 while there is
    none."""
    return contained.first([] if job.group is None else job.group.directories, job.mark)
