"""The agent's side of a process: from a launch and its data to a request that the keeper can carry
out, and from the keeper's exit record to an outcome that a user understands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moorage.agent.keeping import ExitRecord, SpawnRequest
from moorage.data.base import Bind
from moorage.protocol.agent import Isolation, Launch, Outcome, Usage

WORKDIR = Path("/workflow")


class ProcessError(Exception):
    """This launch cannot become a process here; one line for the user."""


def workdir(directory: Path, isolation: Isolation) -> Path:
    """Where the job sees its working directory: `/workflow`, or `work/` of the attempt itself
    where there is no mount namespace."""
    return WORKDIR if isolation.mounts is None else directory / "work"


def prepare(
    launch: Launch, directory: Path, binds: Sequence[Bind], output: Path, isolation: Isolation
) -> SpawnRequest:
    """Write `script` and `bin/` into the attempt's directory and say what the keeper must do.

    `binds` are those of the data sources; the working directory, the private /tmp, /var/tmp and
    /dev/shm and the scratch directory are added here, and made where they are missing.
    Idempotent. ProcessError where the node cannot do what is asked.
    """
    raise NotImplementedError


def outcome(launch: Launch, record: ExitRecord) -> Outcome:
    """What an exit record means to the user."""
    raise NotImplementedError


def usage(record: ExitRecord) -> Usage:
    """What the process tree consumed."""
    raise NotImplementedError
