"""Where the program of a command is, as a shell looks for it. Standard library only (keeper)."""

from __future__ import annotations

import os
import stat


def find(name: str, path: str) -> str | None:
    """The file that a shell would execute for that name; None where it is not plain which one, or
    whether there is any. Relative names count from the working directory."""
    if "/" in name:
        return name if _may_run(name) else None
    directories = path.split(":")
    if not all(directory.startswith("/") for directory in directories):
        return None
    for directory in directories:
        place = f"{directory.rstrip('/')}/{name}"
        if _may_run(place):
            return place
    return None


def _may_run(path: str) -> bool:
    try:
        # In this order, because where nothing is, `access` needs no exception to say so.
        return os.access(path, os.X_OK) and stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
