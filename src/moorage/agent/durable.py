"""Mounts with `durable: fsync`: what the keeper must be told of them, and where they cannot be.
What does the work is in `fsyncs/`, and loaded only where a job asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moorage.data.sources import MOUNTS
from moorage.specs.mounts import Bucket, Mount

_FIX = "use another node, or remove durable: fsync"


def held(mounts: Sequence[Mount], directory: Path) -> list[str]:
    """Their directories in an attempt's."""
    return [f"{directory}/{MOUNTS}/{number}" for number, one in enumerate(mounts) if asked(one)]


def asked(mount: Mount) -> bool:
    """Whether it is one of them."""
    return isinstance(mount, Bucket) and mount.durable == "fsync"


def problem(mount: Mount) -> str:
    """Why this node cannot keep what the mount promises; empty where it can."""
    if not asked(mount):
        return ""
    from moorage.agent.fsyncs import calls

    why = calls.why_not()
    if not why:
        return ""
    return f"{mount.target}: fsync cannot be made to wait for the upload here: {why}; {_FIX}"


def engine_problem(engine: str, mounts: Sequence[Mount]) -> str:
    """Why jobs with such mounts are not for a container engine; empty where there is none."""
    if not any(map(asked, mounts)):
        return ""
    return (
        f"durable: fsync does not reach into containers of {engine}; let moorage start them "
        "(engines: [moorage]), or remove it"
    )
