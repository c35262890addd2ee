"""The end of a visit, for whoever looked in and for what was started. Standard library only
(keeper)."""

from __future__ import annotations

import json
import os
import select
import signal
import time

from moorage.agent.keeper import family

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

HUP_PATIENCE = 2.0
"""Seconds from the hangup to the end by force."""


def answer(agent: socket.socket, **fields: str) -> None:
    """Our first line."""
    try:
        agent.sendall(json.dumps(fields).encode() + b"\n")
    except OSError:  # the agent is gone
        pass


def end_all(patience: float) -> None:
    """Hang up on all that descends from this process, and kill what is left after `patience`
    seconds."""
    deadline = time.monotonic() + patience
    number = signal.SIGHUP if patience > 0 else signal.SIGKILL
    told: set[int] = set()
    while True:
        alive = [pid for pid in family.descendants([os.getpid()]) if pid != os.getpid()]
        if not alive:
            return
        if number == signal.SIGHUP and time.monotonic() >= deadline:
            number, told = signal.SIGKILL, set()
        for pid in alive:
            if pid not in told:
                told.add(pid)
                family.send(pid, number)
                family.send(pid, signal.SIGCONT)
        _until_one_ends(alive, max(0.0, deadline - time.monotonic()) or 1.0)


def _until_one_ends(pids: list[int], patience: float) -> None:
    poll = select.poll()
    held = []
    for pid in pids:
        try:
            held.append(os.pidfd_open(pid))
        except OSError:  # that one has ended
            patience = 0.0
            continue
        poll.register(held[-1], select.POLLIN)
    poll.poll(patience * 1000)
    for descriptor in held:
        os.close(descriptor)
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return
