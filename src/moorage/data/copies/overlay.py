"""A writable view of a generation: an overlay where this user may mount, which costs nothing until
the job writes; else a private copy, which shares blocks where the file system can.

    <mount>/merged/   what the job sees of an overlay; upper/ and work/ are the kernel's
    <mount>/private/  the copy, beside `private.stamp`, which is as old as its last file

Mounted on the node, so that it outlives the agent; `leave` takes it away.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from moorage.data import scratch
from moorage.data.base import NotHere, SourceError
from moorage.data.copies import tree
from moorage.data.copies.generations import Generation
from moorage.data.copies.listing import Layout
from moorage.units import format_size

MERGED, UPPER, WORK = "merged", "upper", "work"
PRIVATE, STAMP = "private", "private.stamp"
_NODEV, _DETACH = 4, 2
_OPTIONS = ("metacopy=on,redirect_dir=on", "")
"""The first has a changed mode or owner copy no content, and directories be renamed."""
_REDIRECT, _METACOPY = "trusted.overlay.redirect", "trusted.overlay.metacopy"
_NOT_THERE = (errno.ENODATA, errno.ENOENT, errno.ENOTDIR)

_libc = ctypes.CDLL(None, use_errno=True)


class View(NamedTuple):
    """What the job sees."""

    root: Path
    upper: Path | None
    """Where the overlay keeps what is not as in the generation; None: it is a copy."""
    stamp: int = 0
    """Time (ns) of change of the last file that the copy got."""

    def untouched(self, path: str) -> bool:
        """Whether this file or directory of the generation certainly is as it was, unless it lies
        in a directory that has `moved`."""
        if self.upper is None:
            return False
        place = f"{self.upper}/{path}"
        try:
            os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            return True
        return has_attribute(place, _METACOPY) and not has_attribute(place, _REDIRECT)

    def moved(self, path: str) -> bool:
        """Whether this directory was another one before."""
        return self.upper is not None and has_attribute(f"{self.upper}/{path}", _REDIRECT)


def make(directory: Path, generation: Generation, title: str) -> View:
    """The view, in `directory` of the attempt; one that is there is used on. SourceError,
    OSError."""
    if (directory / STAMP).exists():
        return _private(directory)
    if (view := _overlay(directory, generation)) is not None:
        return view
    scratch.remove(directory / UPPER)  # nobody is to look for changes there
    return _copy(directory, generation, title)


def again(directory: Path, generation: Generation) -> View | None:
    """The view that the job had, mounted again where the machine was started anew; None where it
    never had one."""
    if (directory / STAMP).exists():
        return _private(directory)
    if not (directory / UPPER).exists():
        return None
    view = _overlay(directory, generation)
    if view is None:
        raise SourceError(f"{directory / MERGED}: what the job wrote cannot be mounted again")
    return view


def leave(directory: Path) -> None:
    """Unmount what `make` mounted; nothing to do where it is not. SourceError."""
    merged = directory / MERGED
    while str(merged) in scratch.mounts_below(directory):
        if _libc.umount2(os.fsencode(merged), 0) and _libc.umount2(os.fsencode(merged), _DETACH):
            reason = os.strerror(ctypes.get_errno())
            raise SourceError(f"{merged} cannot be unmounted: {reason}")


def has_attribute(path: str, name: str) -> bool:
    """OSError where the file system does not say."""
    try:
        os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return False
        raise
    return True


def _overlay(directory: Path, generation: Generation) -> View | None:
    """None where this user may not mount, or the file system cannot hold what is written."""
    view = View(directory / MERGED, directory / UPPER)
    if os.path.realpath(view.root) in scratch.mounts_below(directory):
        return view
    if os.geteuid() != 0:
        return None
    for name in (MERGED, UPPER, WORK):
        (directory / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        (directory / name).chmod(0o755)
    # By descriptors: a path may hold characters that mean something in the options.
    places = [
        os.open(path, os.O_PATH | os.O_CLOEXEC)
        for path in (generation.content, directory / UPPER, directory / WORK)
    ]
    names = ("lowerdir", "upperdir", "workdir")
    try:
        options = [f"{n}=/proc/self/fd/{fd}" for n, fd in zip(names, places, strict=True)]
        if any(_mount(view.root, ",".join(filter(None, (*options, own)))) for own in _OPTIONS):
            return view
    finally:
        for descriptor in places:
            os.close(descriptor)
    return None


def _mount(root: Path, options: str) -> bool:
    target, kind = os.fsencode(root), b"overlay"
    result = _libc.mount(kind, target, kind, ctypes.c_ulong(_NODEV), options.encode())
    return bool(result == 0)


def _private(directory: Path) -> View:
    return View(directory / PRIVATE, None, (directory / STAMP).stat().st_ctime_ns)


def _copy(directory: Path, generation: Generation, title: str) -> View:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    root = directory / PRIVATE
    scratch.remove(root)  # an agent that died may have begun it
    size, free = generation.kept.size, shutil.disk_usage(directory).free
    if size > free and not _shares_blocks(directory, generation):
        raise NotHere(
            f"{title}: a private copy needs {format_size(size)}, and {format_size(free)} are free "
            f"at {directory}; make room there, or use read_only: true"
        )
    entries = generation.entries()
    content = generation.content
    layout = Layout(entries, _directories(content), [])
    tree.build(root, layout, lambda index: f"{content}/{entries[index].path}", tree.copy)
    (directory / STAMP).touch()
    return _private(directory)


def _directories(content: Path) -> list[str]:
    """All of them, relative."""
    start = len(str(content)) + 1
    return [found[start:] for found, _, _ in os.walk(content) if len(found) > start]


def _shares_blocks(directory: Path, generation: Generation) -> bool:
    """Whether a copy takes no space, tried with the first file that has content."""
    first = next((entry for entry in generation.entries() if entry.size), None)
    if first is None:
        return True
    trial = directory / "trial"
    try:
        return tree.clone(f"{generation.content}/{first.path}", str(trial))
    finally:
        trial.unlink(missing_ok=True)
