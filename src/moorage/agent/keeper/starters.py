"""The threads that start processes. Standard library only (keeper).

One thread takes starts one after the other: threads that take turns holding Python's lock cost
more than what they do. A start that may hang, on a file server that is gone, gets a thread of its
own, and where the one thread hangs nevertheless, another takes over.

A thread that has started a program without a shell never ends: the kernel takes the end of a
thread for the death of the parent, of which a program may have asked to die (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue

from moorage.agent.keeper import launching
from moorage.agent.sandbox import mounting
from moorage.agent.sandbox.roots import USUAL, Roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from moorage.agent.keeper.cgroup import Group
    from moorage.agent.keeper.launching import Started
    from moorage.agent.keeper.loop import Loop

    Task = tuple[dict[str, Any], Group | None, Callable[[Started], None]]

PATIENCE = 0.5
"""Seconds after which a start counts as hanging, where others wait for it."""


class Starters:
    """Carries out starts in order, each answered on the loop."""

    def __init__(self, loop: Loop, roots: Roots | None) -> None:
        self._loop, self._roots = loop, roots
        self._tasks: SimpleQueue[Task] = SimpleQueue()
        self._began = 0.0
        self._turn = self._resting = 0
        self._turns: SimpleQueue[int] = SimpleQueue()
        self._watched = False

    def submit(
        self, request: dict[str, Any], group: Group | None, done: Callable[[Started], None]
    ) -> None:
        """Start it soon; `done` is called on the loop."""
        if may_hang(request):
            task = ({**request, "direct": None}, group, done)
            threading.Thread(target=self._carry_out, args=(task,), daemon=True).start()
            return
        self._tasks.put((request, group, done))
        if not self._turn:
            self._relieve()
        elif not self._watched:
            self._watched = True
            self._loop.later(PATIENCE, self._look)

    def _look(self) -> None:
        """Is the thread whose turn it is stuck in one start while others wait?"""
        self._watched = False
        if self._tasks.empty():
            return
        if time.monotonic() - self._began > PATIENCE:
            self._relieve()
        self._watched = True
        self._loop.later(PATIENCE, self._look)

    def _relieve(self) -> None:
        self._began = time.monotonic()
        self._turn += 1
        self._turns.put(self._turn)
        if self._resting:
            self._resting -= 1
        else:
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            turn = self._turns.get()
            while self._turn == turn:
                task = self._tasks.get()
                self._began = time.monotonic()
                self._carry_out(task)
                if self._tasks.empty():  # else the next start leaves it at once
                    self._leave()
            self._loop.post(self._rest)

    def _rest(self) -> None:
        self._resting += 1

    def _leave(self) -> None:
        """Else this thread would keep the job's mounts until the next one comes."""
        if self._roots is not None:
            try:
                self._roots.leave()
            except mounting.MountError:  # as the start has said, it may not have its own root
                pass

    def _carry_out(self, task: Task) -> None:
        request, group, done = task
        started = launching.start(request, group, self._roots)
        self._loop.post(lambda: done(started))


def may_hang(request: dict[str, Any]) -> bool:
    """Whether it has to do with more than the node's own directories and the attempt's."""
    if not request["cwd"].startswith(("/workflow", request["directory"])):
        return True
    if request.get("engine") is not None:  # nor may it see what a thread has seen before
        return True
    if request.get("fsyncs"):  # its thread can do nothing else afterwards
        return True
    own = f"{request['directory']}/"
    return not all(
        operation[1] in USUAL
        if operation[0] == "tmpfs"
        else str(operation[1]).startswith(own) and operation[2] in USUAL
        for operation in request["mounts"] or ()
        if operation[1:3] != [request["directory"]] * 2
    )
