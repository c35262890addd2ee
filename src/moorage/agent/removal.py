"""Take a job's data off the node."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from moorage.data import scratch
from moorage.data.base import SourceError

_TRIES = 3


async def remove(paths: Iterable[str | Path]) -> list[str]:
    """Remove files and directories; what could not be removed, and why. Small things go at once,
    because a thread takes longer than they do; trees go in a thread."""
    trees = [Path(path) for path in paths if not _quickly(path)]
    if not trees:
        return []
    return await asyncio.to_thread(lambda: [text for path in trees if (text := _tree(path))])


def _quickly(path: str | Path) -> bool:
    """Remove a file or an empty directory; False for anything else."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        with suppress(OSError):
            os.unlink(path)
            return True
        return False
    except OSError:
        return False
    return True


def _tree(path: Path) -> str:
    """Remove a tree; the reason why not, or nothing."""
    wrong = ""
    for _ in range(_TRIES):  # an agent that was killed may have left a git that still writes
        try:
            scratch.remove(path)
        except SourceError as error:
            wrong = str(error)
        else:
            return ""
    return wrong
