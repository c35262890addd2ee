"""The process between a job and one who looks in: started by the keeper for one visit, it talks to
the agent on a socket, and ends with the visit, the job, the agent or the keeper, whichever is
first. Standard library only (keeper).

The agent's first line says what is wanted, our first line that it is there, or why not; then come
bytes. What a visit leaves running, as a shell's background jobs, stays until the job ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket

from moorage.agent.visits import command
from moorage.agent.visits.ending import answer
from moorage.agent.visits.entering import Job, NotEntered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_PR_SET_CHILD_SUBREAPER = 36
_LINE = 1 << 22


def main(directory: str, name: str, told: dict[str, Any]) -> NoReturn:
    """For a fork of the keeper. `directory` and `name`: where the agent listens; `told`: what
    `Job` needs."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the job's, which we outlive by a moment
    agent = _dial(directory, name)
    job = Job(told)
    wanted, rest = _first_line(agent)
    try:
        ended = job.descriptor()
        if wanted["type"] == "ssh":
            from moorage.agent.visits import sshd  # the keeper itself has no use for what it needs

            sshd.serve(job, wanted, agent, ended)
        else:
            command.serve(job, wanted, agent, ended, rest)
    except NotEntered as error:
        answer(agent, code="conflict", error=str(error))
    except OSError as error:
        answer(agent, code="unavailable", error=f"{error.filename or 'node'}: {error.strerror}")
    finally:
        agent.close()
    os._exit(0)


def _dial(directory: str, name: str) -> socket.socket:
    """Connect to the agent, by a path that fits into an address."""
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        agent.connect(f"/proc/self/fd/{place}/{name}")
    finally:
        os.close(place)
    return agent


def _first_line(agent: socket.socket) -> tuple[dict[str, Any], bytes]:
    """What is wanted, and what came with it."""
    data = b""
    while b"\n" not in data:
        chunk = agent.recv(65536)
        if not chunk or len(data) > _LINE:
            os._exit(1)
        data += chunk
    line, _, rest = data.partition(b"\n")
    return json.loads(line), rest
