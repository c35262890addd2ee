"""A job's mount whose files are stored when somebody asks: what they are in rclone's cache, and
when they are in the bucket. Standard library only.

A file is held open here while it is uploaded. So rclone, which uploads it when the last one closes
it, does so after that, and what it stores then is the same or newer.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import time
from contextlib import contextmanager, suppress

from moorage.agent.fsyncs.remote import Failed, Remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FAILURES = "fsyncs"
"""In a mount's directory: a line for each that failed."""
_ROOM = 1 << 18
"""Bytes of it: a job may try again for as long as it lives."""
_LINK = ".rclonelink"
"""What rclone adds to the name of an object that is a symbolic link."""
_TRIES = 20
_COARSE = 0.05
"""Seconds: two changes of a file within one tick of the kernel's clock look like one."""
_PIECE = 1 << 20
_DELETED = " (deleted)"
"""What the kernel adds to a name that is none any more."""
_MOST = 4096
"""Files that are remembered."""

Stamp = tuple[int, int, int]


class _File:
    """What is known of one, by its inode. One upload at a time: the last must be the newest."""

    __slots__ = ("lock", "seen", "sent", "stamp", "users")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stamp: Stamp | None = None
        self.sent = (0, 0)
        self.seen = False
        self.users = 0


class Mounted:
    """`directory` is the mount's own, in which its rclone works."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._place = f"{directory}/at"
        self._remote = Remote(directory)
        self._lock = threading.Lock()
        self._files: dict[int, _File] = {}

    def end(self) -> None:
        """Returns when nothing goes on that was begun here or by a process before this one."""
        self._remote.end()

    def stored(self, descriptor: int, root: str, everything: bool = False) -> None:
        """Returns when what the open file has now is in the bucket; of a directory all files in
        it, `everything`: of the whole mount. `root`: what of the mount the job has bound.
        OSError, Failed."""
        if everything:
            self._below("", deep=True)
        elif stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._below(self._name(descriptor, root) or "", deep=False)
        else:
            self._file(descriptor, root)

    def note_failure(self, descriptor: int, why: str) -> None:
        """For whoever looks at the run."""
        with suppress(OSError):
            name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
            line = f"{time.time():.3f} {name}: {why}".replace("\n", " ")
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            file = os.open(f"{self.directory}/{FAILURES}", flags, 0o600)
            try:
                if os.fstat(file).st_size < _ROOM:
                    os.write(file, f"{line}\n".encode(errors="replace"))
            finally:
                os.close(file)

    def _below(self, top: str, deep: bool) -> None:
        """What is not in the bucket yet of a directory."""
        _, notes = self._remote.cache()
        for path in noted(notes, top, deep):
            if not _stored(f"{notes}/{path}"):
                self._one_below(path)

    def _one_below(self, path: str) -> None:
        if path.endswith(_LINK):  # it never changes
            self._upload(path, self._remote.cache()[0])
            return
        try:
            found = os.open(f"{self._place}/{path}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:  # renamed or removed just now
            return
        try:
            self._file(found, "/", path)
        finally:
            os.close(found)

    def _file(self, descriptor: int, root: str, path: str | None = None) -> None:
        with self._turn(os.fstat(descriptor).st_ino) as file:
            os.fsync(descriptor)  # what came while others had their turn
            for _ in range(_TRIES):
                name = path if path is not None else self._name(descriptor, root)
                path = None
                if name is None:
                    return  # it was removed
                stray = self._present(name, descriptor, file)
                if self._name(descriptor, root) == name and stray is not None:
                    return
                if stray:
                    self._forgo(name, *file.sent)
        raise Failed("it is renamed again and again")

    def _present(self, name: str, descriptor: int, file: _File) -> bool | None:
        """Have it in the bucket by that name; whether it was uploaded here. None where it turns
        out to have another name by now."""
        cache, notes = self._remote.cache()
        if not os.path.exists(f"{notes}/{name}"):
            os.pread(descriptor, 1, 0)  # makes rclone write one
            if not os.path.exists(f"{notes}/{name}"):
                threading.Event().wait(_COARSE)
                return None
        if _stored(f"{notes}/{name}"):
            return False
        try:
            content = os.open(f"{cache}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if file.stamp == _stamp(content):
                return False
            _fill(content, descriptor)
            stamp = _stamp(content)
            settled = time.time() - stamp[2] / 1e9 > _COARSE
            file.sent = stamp[1], os.fstat(content).st_mtime_ns
            self._upload(name, cache)
            file.stamp = stamp if settled else None
        finally:
            os.close(content)
        if not file.seen:  # else rclone would leave it behind when it is renamed or removed
            self._remote.look_again(name)
            file.seen = True
        return True

    def _upload(self, name: str, cache: str) -> None:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise Failed("its name is no UTF-8") from None
        self._remote.upload(cache, self._target(), name)

    def _forgo(self, name: str, size: int, modified: int) -> None:
        """It was renamed or removed while it was uploaded, of which rclone knows nothing: remove
        that object, unless somebody has made another file of this name. One that is in the bucket
        already has left nothing on this node when it gets that name: the object must be ours."""
        if os.path.exists(f"{self._remote.cache()[1]}/{name}"):
            return
        if self._remote.stat(self._target(), name) == (size, modified // 1000):
            self._remote.delete(self._target(), name)
            self._remote.look_again(name)

    def _target(self) -> str:
        with open(f"{self.directory}/how") as file:
            return str(json.load(file)["words"][1])

    def _name(self, descriptor: int, root: str) -> str | None:
        """Its path below the mount; None where it has none any more. The kernel says where the
        job sees it, and what of that is the way to the mount is found by trying.

        It may take a file for deleted that is there: it forgets the name that one was opened by
        where many open it at once."""
        seen = os.readlink(f"/proc/self/fd/{descriptor}")
        wanted = os.fstat(descriptor)
        for told in dict.fromkeys((seen, seen.removesuffix(_DELETED))):
            top, parts = root.strip("/"), told.strip("/").split("/")
            for number in range(len(parts) + 1):
                name = "/".join(filter(None, (top, *parts[number:])))
                if self._is(name, wanted):
                    return name
        if seen.endswith(_DELETED):
            return self._renamed(wanted)
        raise OSError(errno.EIO, "it cannot be found in its bucket")

    def _is(self, name: str, wanted: os.stat_result) -> bool:
        with suppress(FileNotFoundError, NotADirectoryError):
            found = os.lstat(f"{self._place}/{name}")
            return (found.st_ino, found.st_dev) == (wanted.st_ino, wanted.st_dev)
        return False

    def _renamed(self, wanted: os.stat_result) -> str | None:
        """One of which the kernel no longer knew the name, by rclone's notes of what is not in
        the bucket; it keeps none of what was removed."""
        notes = self._remote.cache()[1]
        for path in noted(notes, "", deep=True):
            if not _stored(f"{notes}/{path}") and self._is(path, wanted):
                return path
        return None

    @contextmanager
    def _turn(self, inode: int) -> Iterator[_File]:
        with self._lock:
            if len(self._files) > _MOST:
                self._files = {key: one for key, one in self._files.items() if one.users}
            file = self._files.setdefault(inode, _File())
            file.users += 1
        try:
            with file.lock:
                yield file
        finally:
            with self._lock:
                file.users -= 1


def noted(notes: str, top: str, deep: bool) -> Iterator[str]:
    """What rclone has notes of in the directory `top`; `deep`: and in all below it. OSError: what
    cannot be looked at may hold something that is not in the bucket."""
    for directory, _, names in os.walk(f"{notes}/{top}", onerror=_unless_gone):
        for name in names:
            yield os.path.relpath(f"{directory}/{name}", notes)
        if not deep:
            return


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _stored(note: str) -> bool:
    """Whether rclone has noted that it is in the bucket. It writes notes anew in place, so that
    one is empty for a moment."""
    try:
        with open(note, "rb") as file:
            found = json.load(file)
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return found.get("Dirty") is False


def _stamp(content: int) -> Stamp:
    status = os.fstat(content)
    return status.st_ino, status.st_size, status.st_ctime_ns


def _fill(content: int, descriptor: int) -> None:
    """Have rclone fetch what it has not needed so far of a file that was there before: in its
    cache those are holes."""
    size, place = os.fstat(content).st_size, 0
    while place < size:
        hole = os.lseek(content, place, os.SEEK_HOLE)
        try:
            place = os.lseek(content, hole, os.SEEK_DATA) if hole < size else size
        except OSError as error:
            if error.errno != errno.ENXIO:  # nothing but a hole up to the end
                raise
            place = size
        while hole < place and (piece := os.pread(descriptor, min(_PIECE, place - hole), hole)):
            hole += len(piece)
