"""One bucket mounted by one rclone, which outlives the agent.

    mounts/N/   at     where the job finds it: every mount ever made of it, the newest on top
                raw    what rclone mounts, before it is shown at `at`; not without root
                cache  what is not in the bucket yet, and what need not be fetched again
                how    words and variables, secrets too, for a restart without the server (0600)
                rc     the socket of its remote control
                log    what it had to say
                restarts   a line for each time it had to be started anew
                keys   secrets that do not last, and keys.ini: how it asks for them (0600)
                lost   names of files that were being streamed when the wait for that was ended

rclone works in this directory, and by that it is found again: no file can name a wrong process.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from moorage.data.base import SourceError
from moorage.data.rclone import (
    adoption,
    broken,
    environment,
    fuse,
    heirs,
    notes,
    options,
    parts,
    program,
)
from moorage.data.rclone.rc import PROBE, Control, Unreachable
from moorage.decoding import from_json
from moorage.specs.mounts import Bucket

READY_WITHIN = 60.0
"""Seconds from start to mount: a good part of a second even on a busy machine."""
_EACH = 0.05  # seconds for each file that was not uploaded
_FORGETS = 1.0  # seconds for which the kernel believes the size that it was told last
_MOMENT = 0.2  # seconds that it needs to notice that its mount is gone
_UPLOADS, _PAUSE = 10.0, 0.05
"""Seconds that uploads which have begun get to end before a job sees the mount; between looks."""
_LAST_WORDS = 3.0  # seconds that each way of ending it gets
_SPAWN = f'"$@" </dev/null >>{options.LOG} 2>&1 & echo $!'
"""A shell in between, so that it is nobody's child: whichever agent lives, none must reap it."""

_ERROR = re.compile(r"\b(ERROR|CRITICAL|EMERGENCY)\b")
_HELPER = re.compile(r"mount helper error: (.*)")


class How(Struct, frozen=True):
    """Enough to start it again."""

    words: list[str]
    variables: dict[str, str]
    bucket: Bucket

    @property
    def cached(self) -> bool:
        """Whether anything is kept on the node."""
        return self.bucket.mode == "cached"


class RcloneMount:
    """`directory` is the mount's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.place = directory / "at"
        self.control = Control(directory)
        self._raw = directory / "raw" if os.geteuid() == 0 else self.place

    @property
    def mountpoint(self) -> str:
        """What rclone is told to mount at, as it sees it from its working directory."""
        return self._raw.name

    def set_up(self, how: How) -> None:
        """Write down how it is started; once, before the first `start`."""
        for path in (self.directory, self.place, self._raw, self.directory / options.CACHE):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self.directory / "how.new"
        partial.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(partial, flags, 0o600), "wb") as file:
            file.write(msgspec.json.encode(how))
        partial.replace(self.directory / "how")

    def how(self) -> How | None:
        """As written down; None where it is not."""
        with suppress(OSError, msgspec.MsgspecError):
            return from_json((self.directory / "how").read_bytes(), How)
        return None

    def start(self, wake: int = -1) -> None:
        """Mount it, over what an earlier rclone left. Blocks until the mount is there, or `wake`
        can be read. SourceError."""
        how = self.how()
        if how is None:
            raise SourceError(f"{self.directory} does not say how its bucket is mounted")
        fuse.ensure_control()
        left = self._mount(how, wake)
        if how.cached and self._to_adopt():
            self.kill()
            left = self._mount(how, wake)
        if left:
            self._inherit(left, wake)
        if self._raw != self.place:
            try:
                fuse.show(self._raw, self.place)
            except OSError as error:
                self.kill()
                raise SourceError(f"the mount cannot be shown: {error.strerror}") from None

    def _mount(self, how: How, wake: int) -> list[heirs.Left]:
        """What of its cache was not in the bucket then."""
        fuse.unmount(self._raw)
        (self.directory / options.SOCKET).unlink(missing_ok=True)
        adoption.finish(self.directory)
        cache = self.directory / options.CACHE
        notes.mend(cache, partial(parts.fetch, variables=how.variables, wake=wake))
        left = list(self._left())
        said = self._log_size()
        pid = self._spawn(how)
        with self._held(pid) as pidfd:
            deadline = time.monotonic() + READY_WITHIN
            if pidfd >= 0 and fuse.wait_mounted(self._raw, (pidfd, wake), deadline):
                return left
        self.kill()
        why = self._helpers_words(said) or self.last_line(said) or "it said nothing"
        raise SourceError(f"the bucket cannot be mounted: {why}")

    def _inherit(self, left: list[heirs.Left], wake: int) -> None:
        try:
            with self._held(self.find() or 0) as pidfd:
                patience = READY_WITHIN + len(left) * _EACH
                unlisted = heirs.inherit(self._raw, left, (pidfd, wake), patience, self.kill)
                broken.note(self.directory, left)
                unlisted |= self._end_uploads({one.path for one in left}, (pidfd, wake))
                if unlisted:
                    self.control.list_again(unlisted)
                    _rest((pidfd, wake), _FORGETS)
        except (SourceError, Unreachable) as error:
            self.kill()
            raise SourceError(f"what is not uploaded cannot be looked at: {error}") from None

    def _end_uploads(self, paths: set[str], ends: tuple[int, int]) -> set[str]:
        """Wait for those that have begun, if that does not take long."""
        began = paths & {one.name for one in self.control.queue() if one.uploading}
        going, deadline = began, time.monotonic() + _UPLOADS
        while going and time.monotonic() < deadline and not _rest(ends, _PAUSE):
            going = going & {one.name for one in self.control.queue() if one.uploading}
        return began

    def _left(self) -> Iterator[heirs.Left]:
        cache, depth = self.directory / options.CACHE, len(self._remote().parts)
        for note in _files(cache / "vfsMeta"):
            path = note.relative_to(cache / "vfsMeta")
            content = cache / "vfs" / path
            with suppress(FileNotFoundError):
                if notes.may_be_dirty(note):
                    found, name = content.stat(), str(Path(*path.parts[depth:]))
                    yield heirs.Left(name, note, content, found.st_size, found.st_mtime_ns)

    def _spawn(self, how: How) -> int:
        rclone = program.find()
        large = program.mounts_by_large_requests(rclone)
        verb = options.LARGE if large else options.PLAIN
        words = ["/bin/sh", "-c", _SPAWN, "sh", str(rclone), verb, *how.words[1:]]
        started = subprocess.run(
            words,
            cwd=self.directory,
            env=environment.of_process(how.variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            umask=0o077,
        )
        return int(started.stdout or 0)

    def _to_adopt(self) -> bool:
        """Whether an rclone with other secrets left something in the cache. SourceError: it
        cannot be said."""
        try:
            own = self.control.name().partition(":")[0]
        except Unreachable as error:
            if not self.dirty(1):
                return False
            self.kill()
            raise SourceError(str(error)) from None
        return adoption.begin(self.directory, own)

    def find(self) -> int | None:
        """The process, if it lives."""
        wanted = os.path.realpath(self.directory)
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with suppress(OSError):
                if os.readlink(f"/proc/{name}/cwd") == wanted and _is_mount(name):
                    return int(name)
        return None

    def pidfd(self) -> int:
        """A descriptor of the process, readable once it has ended; -1 where none lives."""
        pid = self.find()
        if pid is None:
            return -1
        try:
            found = os.pidfd_open(pid)
        except OSError:
            return -1
        if self.find() == pid:  # still the same
            return found
        os.close(found)
        return -1

    @contextmanager
    def _held(self, pid: int) -> Iterator[int]:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:  # it has ended already
            yield -1
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def kill(self) -> bool:
        """End the process at once, also one that hangs; whether it is gone. What it had not
        uploaded is in its cache."""
        while (descriptor := self.pidfd()) >= 0:
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                if fuse.wait_gone(descriptor, _LAST_WORDS):
                    continue
                for device in fuse.mounted(self._raw):
                    fuse.abort(device)
                if not fuse.wait_gone(descriptor, _LAST_WORDS):
                    return False
            except ProcessLookupError:
                continue
            finally:
                os.close(descriptor)
        return True

    def end(self) -> None:
        """Unmount it everywhere, and see its process out. SourceError where something stays."""
        descriptor = self.pidfd()
        gone = fuse.unmount(self.place)
        gone = fuse.unmount(self._raw) and gone
        if descriptor >= 0:
            try:
                # With its mount goes its reason to live, but where a job that began meanwhile has
                # a copy of the mount, as it does below a root that is mounted privately.
                if not fuse.wait_gone(descriptor, _MOMENT):
                    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
                    fuse.wait_gone(descriptor, _LAST_WORDS)
            except ProcessLookupError:
                pass
            finally:
                os.close(descriptor)
        if not self.kill() or not gone:
            raise SourceError(f"{self.directory}: its mount cannot be taken away")

    @property
    def comes_back(self) -> bool:
        """Whether a job that runs sees it again once it was started anew."""
        how = self.how()
        return self._raw != self.place and how is not None and "--include" not in how.words

    @property
    def shown(self) -> bool:
        """Whether a job sees what its process mounts: an agent may be killed in between."""
        return fuse.mounted(self._raw)[-1:] == fuse.mounted(self.place)[-1:]

    def upload_again(self) -> bool:
        """See `broken`."""
        how = self.how()
        return how is not None and broken.upload_again(
            self.directory, self._raw, how.words[1], self.control
        )

    def device(self) -> int | None:
        """The number of the connection that is on top."""
        found = fuse.mounted(self._raw)
        return found[-1] if found else None

    def _helpers_words(self, after: int) -> str:
        """Of fusermount, which says better than rclone what was wrong."""
        with suppress(OSError), open(self.directory / options.LOG, "rb") as log:
            log.seek(after)
            found = _HELPER.findall(log.read().decode(errors="replace"))
            return found[-1] if found else ""
        return ""

    def last_line(self, after: int = 0) -> str:
        """The last thing that rclone said beyond that many bytes, without its date."""
        with suppress(OSError), open(self.directory / options.LOG, "rb") as log:
            log.seek(max(after, self._log_size() - 4096))
            lines = log.read().decode(errors="replace").strip().splitlines()
            return _without_date(lines[-1]) if lines else ""
        return ""

    def last_error(self) -> str:
        """The last error that rclone told; what it only notes is none."""
        with suppress(OSError), open(self.directory / options.LOG, "rb") as log:
            log.seek(max(0, self._log_size() - 65_536))
            lines = log.read().decode(errors="replace").splitlines()
            said = (line for line in reversed(lines) if _ERROR.search(line) and PROBE not in line)
            return _without_date(next(said, ""))
        return ""

    def _log_size(self) -> int:
        with suppress(OSError):
            return (self.directory / options.LOG).stat().st_size
        return 0

    def note_restart(self, why: str) -> int:
        """Count it; how many there were."""
        with open(self.directory / "restarts", "a") as file:
            file.write(f"{time.time():.3f} {why}\n")
        return self.restarts()

    def restarts(self) -> int:
        """How often it had to be started anew."""
        with suppress(OSError):
            return (self.directory / "restarts").read_bytes().count(b"\n")
        return 0

    def note_lost(self, names: list[str]) -> None:
        """These were being written, and nobody waits for them any more."""
        (self.directory / "lost").write_bytes(msgspec.json.encode(names))

    def lost(self) -> list[str]:
        """As noted."""
        with suppress(OSError, msgspec.MsgspecError):
            return from_json((self.directory / "lost").read_bytes(), list[str])
        return []

    def dirty(self, most: int = 0) -> list[str]:
        """Files of the cache that are not in the bucket, as rclone has written it down, by their
        paths below the mount; `most`: stop after that many."""
        top = self.directory / options.CACHE / "vfsMeta"
        depth = len(self._remote().parts)
        found = []
        for path in _files(top):
            if notes.may_be_dirty(path):
                found.append(str(Path(*path.relative_to(top).parts[depth:])))
                if len(found) == most:
                    break
        return sorted(found)

    def _remote(self) -> Path:
        """Where the cache of the bucket lies: remote, bucket and path."""
        how = self.how()
        return Path(how.words[1].replace(":", "/", 1)) if how is not None else Path("remote")


def _rest(ends: tuple[int, int], seconds: float) -> bool:
    """Whether one of the descriptors can be read within that time."""
    return bool(select.select([end for end in ends if end >= 0], [], [], seconds)[0])


def _files(top: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(top):
        for name in names:
            yield Path(directory, name)


def _is_mount(pid: str) -> bool:
    words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0", 2)
    if len(words) < 3 or os.path.basename(words[0]) != b"rclone":
        return False
    return words[1].decode(errors="replace") in (options.PLAIN, options.LARGE)


def _without_date(line: str) -> str:
    date, _, rest = line.partition(" ")
    return rest.partition(" ")[2].strip() if "/" in date and rest else line
