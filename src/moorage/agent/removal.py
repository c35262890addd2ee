"""Take a job's data off the node."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

_TRIES = 3


async def remove(paths: Iterable[Path]) -> list[str]:
    """Remove files and directories; what could not be removed, and why. Small things go at once,
    because a thread takes longer than they do; trees go in a thread."""
    trees = [path for path in paths if not _quickly(path)]
    if not trees:
        return []
    return await asyncio.to_thread(lambda: [text for path in trees if (text := _tree(path))])


def _quickly(path: Path) -> bool:
    """Remove a file or an empty directory; False for anything else."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        with suppress(OSError):
            path.unlink()
            return True
        return False
    except OSError:
        return False
    return True


def _tree(path: Path) -> str:
    """Remove a tree; the reason why not, or nothing. Links are removed, never followed."""
    failed: list[str] = []

    def note(_function: Callable[..., Any], place: str, info: Any) -> None:
        failed.append(f"{place}: {info[1].strerror or info[1]}")

    for _ in range(_TRIES):  # an agent that was killed may have left a git that still writes
        failed.clear()
        shutil.rmtree(path, onerror=note)
        if not os.path.lexists(path):
            return ""
        _open_up(path)
    return f"cannot be removed: {failed[0] if failed else f'{path} keeps being written to'}"


def _open_up(top: Path) -> None:
    """Let the owner into the directories that the job closed to everybody."""
    with suppress(OSError):
        top.chmod(0o700)
        for directory, names, _ in os.walk(top):
            for name in names:
                path = Path(directory, name)
                if not path.is_symlink():
                    path.chmod(0o700)
