"""Directories that had to be made on the node to mount something on them, and their removal.
Standard library only (keeper).

`made.json` in an attempt's directory lists them, outermost first. An attempt that finds one which
another attempt made lists it too, so the last one to use it removes it.
"""

from __future__ import annotations

import fcntl
import json
import os

NAME = "made.json"


def remember(directory: str, paths: list[str]) -> None:
    """Add to the attempt's list. OSError."""
    merged = list(dict.fromkeys(_read(directory) + paths))
    temporary = os.path.join(directory, f"{NAME}.new")
    with open(temporary, "w") as file:
        json.dump(merged, file)
    os.replace(temporary, os.path.join(directory, NAME))


def made_by_others(parent: str, own: str) -> set[str]:
    """What the attempts in `parent`, but for the one named `own`, have made or use."""
    found: set[str] = set()
    try:
        names = os.listdir(parent)
    except OSError:
        return found
    for name in names:
        if name != own:
            found.update(_read(os.path.join(parent, name)))
    return found


def remove_made(directory: str) -> None:
    """Remove the attempt's mount points that are empty, which no other attempt of this agent
    uses, and on which nothing is mounted for any process that can be seen. Idempotent; call it
    after the process ended and before the attempt's directory goes."""
    made = _read(directory)
    if not made:
        return
    parent, own = os.path.split(directory)
    held = lock(parent)
    try:
        # rmdir would silently take a mount away from the job that has it there.
        used = made_by_others(parent, own) | _mounted_anywhere()
        remove([path for path in made if path not in used])
        os.unlink(os.path.join(directory, NAME))
    except FileNotFoundError:
        pass
    finally:
        os.close(held)


def remove(paths: list[str]) -> None:
    """Remove those that are empty, inner ones first."""
    for path in sorted(paths, reverse=True):
        try:
            if is_bare(path):
                (os.rmdir if os.path.isdir(path) else os.unlink)(path)
        except OSError:
            continue  # gone already, or somebody has just put something there


def is_bare(path: str) -> bool:
    """Whether nothing is there, or something that holds nothing."""
    try:
        return not os.listdir(path)
    except NotADirectoryError:
        return os.path.getsize(path) == 0
    except OSError:
        return not os.path.exists(path)


def lock(attempts: str) -> int:
    """A descriptor that, until it is closed, keeps others from making or removing mount points of
    the attempts in that directory."""
    descriptor = os.open(attempts, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _mounted_anywhere() -> set[str]:
    found: set[str] = set()
    seen: set[str] = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            namespace = os.readlink(f"/proc/{name}/ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            with open(f"/proc/{name}/mountinfo", "rb") as file:
                for line in file:
                    point = line.split(b" ")[4].decode("unicode_escape").encode("latin-1")
                    found.add(os.fsdecode(point))
        except OSError:
            continue
    return found


def _read(directory: str) -> list[str]:
    try:
        with open(os.path.join(directory, NAME)) as file:
            paths = json.load(file)
    except (OSError, ValueError):
        return []
    return [str(path) for path in paths]
