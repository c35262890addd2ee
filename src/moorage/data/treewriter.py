"""Writes files below a directory that somebody else may have filled with links.

Every path is walked from an open directory, component by component, without following links
(`dir_fd`, `O_NOFOLLOW`): a link in a volume can neither lead a write out of it nor win a race.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import TracebackType

from moorage.data.base import SourceError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORIES = 64
FICLONE = 0x40049409
_COPY_STEP = 1 << 30


class TreeWriter:
    """Writes below `rest` in `root`; paths are relative to that. Directories on the way are made.

    With `merge`, what exists stays, files are replaced atomically and links are replaced, never
    followed; without, the place must be new and files are written straight.
    """

    def __init__(self, root: Path, rest: PurePosixPath, *, merge: bool) -> None:
        self._shown = root / rest
        self._merge = merge
        self._open: OrderedDict[str, int] = OrderedDict()
        self._modes: list[tuple[str, int]] = []
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in rest.parts:
            try:
                below = self._enter(fd, name, name)
            finally:
                os.close(fd)
            fd = below
        self._base = fd

    def __enter__(self) -> TreeWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            with suppress(OSError, SourceError):  # the error under way says more
                self.finish()
        while self._open:
            os.close(self._open.popitem()[1])
        os.close(self._base)

    def directory(self, path: str, mode: int) -> None:
        """Make a directory. Its mode is set by `finish`, so that a read-only one can be filled;
        one that exists keeps its own."""
        parent, name = self._split(path)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            self._open_up(path)
            return
        self._modes.append((path, mode))

    def _open_up(self, path: str) -> None:
        """Until `finish`, let its owner write to a read-only directory that exists. (Root, and
        whoever does not own it, get as far as its mode lets them.)"""
        fd = self._directory(path)
        there = os.fstat(fd)
        mode = stat.S_IMODE(there.st_mode)
        if there.st_uid == os.geteuid() != 0 and mode & 0o300 != 0o300:
            os.fchmod(fd, mode | 0o300)
            self._modes.append((path, mode))

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        parent, name = self._split(path)
        try:
            os.symlink(target, name, dir_fd=parent)
        except FileExistsError:
            spare = _spare()
            os.symlink(target, spare, dir_fd=parent)
            self._replace(parent, spare, name, path)

    def file(self, path: str, mode: int, content: bytes | int) -> None:
        """Write a file; `content` is its bytes, or an open file that is copied whole, sharing
        blocks where the filesystem can."""
        parent, name = self._split(path)
        spare = _spare() if self._merge else name
        try:
            fd = os.open(spare, _NEW_FILE, 0o600, dir_fd=parent)
        except FileExistsError:
            raise SourceError(f"{self._shown / path} exists already") from None
        except OSError as error:  # it would name the spare file, which means nothing to anyone
            place = self._shown / path
            raise SourceError(f"{place} cannot be written: {error.strerror}") from error
        try:
            try:
                _write(fd, content)
                os.fchmod(fd, mode)
            finally:
                os.close(fd)
            if self._merge:
                self._replace(parent, spare, name, path)
        except BaseException:
            _remove_quietly(spare, parent)
            raise

    def finish(self) -> None:
        """Set the modes of the directories made or opened up, deepest first."""
        for path, mode in reversed(self._modes):
            os.fchmod(self._directory(path), mode)

    def _replace(self, parent: int, spare: str, name: str, path: str) -> None:
        try:
            os.rename(spare, name, src_dir_fd=parent, dst_dir_fd=parent)
        except IsADirectoryError:
            _remove_quietly(spare, parent)
            raise SourceError(f"{self._shown / path} is a directory; it is not replaced") from None

    def _split(self, path: str) -> tuple[int, str]:
        parent, _, name = path.rpartition("/")
        return self._directory(parent), name

    def _directory(self, path: str) -> int:
        """An open directory; the latest few stay open, because entries come grouped."""
        if not path:
            return self._base
        known = self._open.get(path)
        if known is not None:
            self._open.move_to_end(path)
            return known
        parent, name = self._split(path)
        fd = self._enter(parent, name, path)
        if len(self._open) >= _OPEN_DIRECTORIES:
            os.close(self._open.popitem(last=False)[1])
        self._open[path] = fd
        return fd

    def _enter(self, parent: int, name: str, path: str) -> int:
        """Open directory `name`, made if need be, without following a link."""
        for _ in range(2):
            try:
                return os.open(name, _DIRECTORY, dir_fd=parent)
            except FileNotFoundError:
                try:
                    os.mkdir(name, 0o755, dir_fd=parent)
                except FileExistsError:
                    pass  # somebody else made it
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                break
        what = "a link, which is not followed" if _is_link(name, parent) else "not a directory"
        raise SourceError(f"{self._shown}: {path} there is {what}; choose another path")


def _spare() -> str:
    return f".moorage-{secrets.token_hex(8)}"


def _is_link(name: str, parent: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _remove_quietly(name: str, parent: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except OSError:
        pass  # the error under way says more


def _write(fd: int, content: bytes | int) -> None:
    if isinstance(content, int):
        copy_content(content, fd)
        return
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def copy_content(source: int, target: int) -> None:
    """Give the new file `target` the content of `source` (both open): share blocks (FICLONE), else
    copy inside the kernel, else by sendfile. OSError."""
    try:
        fcntl.ioctl(target, FICLONE, source)
        return
    except OSError:
        pass  # not this filesystem, or not the same one
    done = 0
    size = os.fstat(source).st_size
    try:
        while done < size:
            step = os.copy_file_range(source, target, _COPY_STEP, done, done)
            if step == 0:
                break
            done += step
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    os.lseek(target, done, os.SEEK_SET)
    while done < size:
        step = os.sendfile(target, source, done, _COPY_STEP)
        if step == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        done += step
