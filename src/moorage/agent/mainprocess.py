"""The main process of an attempt, as the keeper has noted it: a number alone may be another's by
now."""

from __future__ import annotations

from pathlib import Path

from msgspec import DecodeError, Struct

from moorage.agent.keeper import family
from moorage.agent.keeper.job import SPAWNED
from moorage.decoding import from_json


class _Spawned(Struct, frozen=True):
    pid: int | None = None
    start_time: int = 0


def living(directory: Path) -> int:
    """Its pid; 0 where it has ended, or never was. `directory`: the attempt's."""
    try:
        noted = from_json((directory / SPAWNED).read_bytes(), _Spawned)
    except (OSError, DecodeError):
        return 0
    pid = noted.pid or 0
    return pid if pid and family.start_time(pid) == noted.start_time else 0
