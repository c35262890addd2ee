"""The way in for the other ranks of a job: the node's own OpenSSH server on a port of this
attempt, for as long as the job's main process runs. Who comes becomes part of the job, as with
`sshd.py`. Standard library only (keeper).
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys

from moorage.agent.keeper import family
from moorage.agent.visits import contained, ending, entering, sshd
from moorage.agent.visits.entering import Job, NotEntered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PR_SET_PDEATHSIG = 1


def main(output: str, told: str) -> None:
    """`output`: the job's, for a line when there is no way in; `told`: what `Job` needs."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the job's, which we outlive by a moment
    wanted = json.loads(told)
    try:
        job = _inside(wanted) if wanted.get("engine") else Job(wanted)
        ended = job.descriptor()
    except NotEntered:
        return
    try:
        problem = _serve(job, ended)
    except OSError as error:
        problem = f"{error.filename or 'sshd'}: {error.strerror}"
    if problem:
        _complain(output, problem)


def _inside(wanted: dict[str, Any]) -> Job:
    """The job in the container that an engine is about to make: until it is there, nobody is let
    in, and other ranks try again. NotEntered."""
    mark = os.environ.get(family.MARKER, "")
    engine = Job({**wanted, "variables": f"{family.MARKER}={mark}"}).descriptor()
    try:
        pid = contained.wait(wanted["groups"], mark, engine)
    finally:
        os.close(engine)
    if not pid:
        raise NotEntered("its container has not started")
    groups = contained.joined(wanted["groups"], pid)
    return Job({**wanted, "pid": pid, "start": family.start_time(pid), "groups": groups})


def _serve(job: Job, ended: int) -> str:
    """Until the job ends. Why it cannot, or nothing."""
    server = sshd.find_server()
    if server is None:
        return "sshd is not installed on this node"
    home = f"{job.directory}/gate"
    with open(f"{home}/client.pub") as file:
        public = file.read()
    sshd.configure(job, home, "gate", public)
    with open(f"{home}/listen.conf") as file, open(f"{home}/gate.conf", "a") as whole:
        whole.write(file.read())
    pid = _start([server, "-D", "-e", "-f", f"{home}/gate.conf"], f"{home}/log")
    poll = select.poll()
    for descriptor in (os.pidfd_open(pid), ended):
        poll.register(descriptor, select.POLLIN)
    if ended in dict(poll.poll()):
        ending.end_all(0.0)
        return ""
    with open(f"{home}/log", errors="replace") as file:
        said = file.read().split("\n")
    return next((line for line in said if line), "sshd ended")


def _start(argv: list[str], log: str) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
            # By the marker it is swept up with the job, should this process be killed.
            mark = os.environ.get(family.MARKER, "")
            os.execve(argv[0], argv, {"PATH": sshd.PLACES, family.MARKER: mark})
        finally:
            os._exit(entering.NOT_STARTED)
    return pid


def _complain(output: str, problem: str) -> None:
    text = f"moorage: other ranks cannot reach this one by ssh: {problem}\n"
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.write(descriptor, text.encode(errors="replace"))
        os.close(descriptor)
    except OSError as error:
        print(f"{output}: {error.strerror}", file=sys.stderr)
