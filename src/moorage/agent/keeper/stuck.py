"""Processes that SIGKILL does not end: they wait in the kernel for an answer, of a mount as a rule
whose store hangs. Whoever leads that mount can give them one. Standard library only (keeper)."""

from __future__ import annotations

import os

from moorage.agent.keeper.loop import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from moorage.agent.keeper.job import Job
    from moorage.agent.keeper.loop import Loop

STUCK = "stuck"
"""In the attempt's directory, from the moment when its processes should long be gone."""
PATIENCE = 1.0
"""Seconds that the kernel gets to end them."""


def expect_end(loop: Loop, job: Job) -> None:
    """Its processes were just killed: say so where that does not end them soon."""
    if not job.killed:
        job.killed = True
        loop.later(PATIENCE, lambda: _look(job))


def _look(job: Job) -> None:
    if job.state in ("removing", "ended"):
        return
    path = f"{job.directory}/{STUCK}"
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:  # the disk is full, or somebody removed the attempt
        say(f"{path}: {error.strerror}")
