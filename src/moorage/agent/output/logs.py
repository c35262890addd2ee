"""The output of attempts: watched while it grows, paged out by offset, bounded on disk.

An offset counts all bytes that the job ever wrote, so it stays valid when the cap drops the
beginning. Where the filesystem can, the dropped part becomes a hole in the file, and the job,
which holds the file open, never notices. Where it cannot, the file is cut to nothing and
`output.base` remembers how many bytes came before.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from moorage.agent.output import marks, retention
from moorage.agent.output.marks import Mark
from moorage.agent.output.watch import Watch
from moorage.ids import AttemptKey
from moorage.protocol.agent import LogData, ReadLog, Sweep, Swept

OUTPUT = "output.log"
MARKS = "output.marks"
BASE = "output.base"
PAGE = 262_144
"""Bytes that one answer carries at most."""
DEFAULT_LIMIT = 1_000_000_000
"""Bytes of output that are kept for one attempt."""

Page = Callable[[], LogData]
"""Reads the page when it is called: a slow connection then holds no pages in memory."""
Reply = Callable[[Page], None]

_KEPT = 0.75  # of the limit, after a drop: dropping is rare, and most of the output stays
_BLOCK = 4096
_QUIET_PAUSE = 0.25  # seconds between two looks at a chatty job that nobody reads
_READER_PAUSE = 0.02  # the same while somebody waits: a delay that a person does not see
_MARK_EVERY = 1.0
_LINE_SEARCH = 65_536
_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01


@dataclass(slots=True, eq=False)
class Output:
    """One attempt's output file. All offsets count from the first byte that was ever written."""

    directory: Path
    path: Path = field(init=False)
    made: bool = False
    """Whether there is a file, as far as is known."""
    base: int = 0
    """Offset of the first byte of the file; above 0 only where the file was cut."""
    first: int = 0
    """Offset of the first byte that can still be read."""
    end: int = 0
    marked: float = 0.0
    looked: float = 0.0
    watch: int | None = None
    timer: asyncio.TimerHandle | None = None
    waiting: dict[int, tuple[ReadLog, int, Reply]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path = Path(f"{self.directory}/{OUTPUT}")

    def make(self) -> None:
        """Make the file, unless the process that writes it came first. OSError."""
        if not self.made:
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self.made = True

    def resume(self) -> None:
        """Go on with a file that nobody watched for a while: what was written meanwhile carries
        the present time, because readers rather get too much than too little."""
        self.load()
        if self.end:
            last = marks.newest(self.directory / MARKS)
            self.mark(last.offset if last else 0, time.time())

    def load(self) -> None:
        """What an earlier agent knew. OSError where there is no output."""
        self.end = self.path.stat().st_size
        with suppress(OSError, ValueError):
            base, first = (self.directory / BASE).read_text().split()
            self.base, self.first = int(base), int(first)
        self.end += self.base

    def look(self) -> int:
        """See how far the file has grown; the number of new bytes. A file that shrank was cut by
        the job itself (`> /dev/stdout` does it): what is in it now is new."""
        end = self.base + self.path.stat().st_size
        if end < self.end:
            self._drop(self.end, self.end)
            end = self.base + self.path.stat().st_size
        grown, self.end = end - self.end, end
        return grown

    def mark(self, offset: int, now: float) -> None:
        """Note that what begins at `offset` was written at `now`."""
        self.marked = now
        marks.append(self.directory / MARKS, Mark(now, offset))

    def trim(self, limit: int) -> None:
        """Drop the oldest part where more than `limit` bytes are kept. The cut falls on a line's
        beginning where there is one near."""
        if self.end - self.first <= limit:
            return
        cut = self.end - int(limit * _KEPT)
        found = self.read(cut, _LINE_SEARCH).find(b"\n")
        first = cut + found + 1
        self._drop(self.base, first)  # before the hole exists: nobody may read zeros
        if not self._punch(first - self.base):
            # Also loses what would have been kept, and what is written between these lines.
            self._drop(self.end, self.end)
            os.truncate(self.path, 0)

    def read(self, offset: int, limit: int) -> bytes:
        """Up to `limit` bytes from `offset`."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, limit, offset - self.base)
        finally:
            os.close(descriptor)

    def resolve(self, request: ReadLog) -> int:
        """The offset that a request means."""
        if request.since is not None:
            return self._since(request.since)
        if request.offset < 0:
            return max(self.first, self.end + request.offset)
        return min(request.offset, self.end)

    def page(self, request: ReadLog, offset: int, ended: bool) -> LogData:
        """The page at `offset`, or at the first byte that is left."""
        offset = max(offset, self.first)
        try:
            data = self.read(offset, min(request.limit, PAGE)) if offset < self.end else b""
        except OSError:
            return _missing(request)
        over = ended and offset + len(data) >= self.end
        return LogData(request.request, offset, data, ended=over)

    def _since(self, since: float) -> int:
        """Where the first line begins that was written at or after `since`. A mark stands for
        all that was written in the second after it, so up to one second too much is given."""
        before, mark = marks.around(self.directory / MARKS, since)
        if before is not None and since <= before.at + _MARK_EVERY + _QUIET_PAUSE:
            mark = before
        offset = self.end if mark is None else mark.offset
        if not self.first < offset < self.end:
            return min(max(offset, self.first), self.end)
        start = max(self.first, offset - _LINE_SEARCH)
        newline = self.read(start, offset - start).rfind(b"\n")
        return start + newline + 1 if newline >= 0 else offset

    def _punch(self, length: int) -> bool:
        """Give the blocks of the first `length` bytes back; False where that is not supported."""
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            size = ctypes.c_int64(length // _BLOCK * _BLOCK)
            mode = _PUNCH_HOLE_KEEP_SIZE
            done: int = libc.fallocate(descriptor, mode, ctypes.c_int64(0), size)
        finally:
            os.close(descriptor)
        return done == 0

    def _drop(self, base: int, first: int) -> None:
        self.base, self.first = base, first
        with suppress(OSError):
            (self.directory / BASE).write_text(f"{base} {first}")


def _missing(request: ReadLog) -> LogData:
    return LogData(request.request, 0, b"", ended=True, missing=True)


class Logs:
    """The output of all attempts of this node, below `root`; `limit` bytes each, 0 for no limit.

    Everything runs on the loop's thread: a page comes from the kernel's cache as a rule, and
    nothing that reads can then race with what drops."""

    def __init__(self, root: Path, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self.root = root
        self._loop = loop
        self._limit = limit
        self._watch = Watch(loop)
        self._live: dict[str, Output] = {}

    def open(self, key: str) -> Path:
        """Begin, or go on, to watch an attempt's output; the file that its process writes. May be
        called again. OSError."""
        if key in self._live:
            return self._live[key].path
        output = Output(self.root / key)
        try:
            output.directory.mkdir(mode=0o700)
        except FileNotFoundError:
            output.directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            output.make()
            output.resume()
        self._live[key] = output
        # Most jobs end before it is worth watching them; a reader makes it happen at once.
        self._later(output, _QUIET_PAUSE)
        return output.path

    def end(self, key: str) -> None:
        """The process is gone: nothing more will be written."""
        output = self._live.pop(key, None)
        if output is None:
            return
        self._rest(output)
        with suppress(OSError):
            try:
                self._look(output, ended=True)
            except FileNotFoundError:  # it had no process
                output.make()
                self._look(output, ended=True)

    def read(self, request: ReadLog, reply: Reply) -> None:
        """Answer now, or, where the request waits, as soon as there is something to say."""
        output = self._live.get(request.key)
        ended = output is None
        try:
            if output is None:
                output = Output(self.root / str(AttemptKey.parse(request.key)))
                output.load()
            else:
                output.make()
                self._look(output)
            offset = output.resolve(request)
            if ended or not request.wait or max(offset, output.first) < output.end:
                reply(partial(output.page, request, offset, ended))
                return
        except (OSError, ValueError):
            reply(partial(self._absent, request))
            return
        output.waiting[request.request] = (request, offset, reply)
        if output.watch is None:
            self._later(output, output.looked + _READER_PAUSE - self._loop.time())

    def cancel(self, request: int) -> None:
        """Forget a waiting request."""
        for output in self._live.values():
            output.waiting.pop(request, None)

    def hang_up(self) -> None:
        """Forget all waiting requests: their connection is gone."""
        for output in self._live.values():
            output.waiting.clear()

    def drop(self, keys: list[str]) -> list[str]:
        """Delete output, except of attempts that still write; of which it is gone."""
        gone = [key for key in keys if key not in self._live]
        for key in gone:
            with suppress(ValueError):
                shutil.rmtree(self.root / str(AttemptKey.parse(key)), ignore_errors=True)
        return gone

    async def sweep(self, asked: Sweep, is_held: Callable[[str], bool]) -> Swept:
        """Remove what finished attempts left beyond the limits; `is_held`: those of which the
        server does not know the end."""
        return await asyncio.to_thread(
            retention.sweep,
            self.root,
            asked,
            lambda key: key in self._live or is_held(key),
            self._end_of,
        )

    def _end_of(self, key: str) -> int:
        output = Output(self.root / key)
        with suppress(OSError):
            output.load()
        return output.end

    def _absent(self, request: ReadLog) -> LogData:
        """Of output that was removed, the end is still known: it counts as dropped, all of it."""
        end = retention.removed(self.root, request.key)
        return _missing(request) if end is None else LogData(request.request, end, b"", ended=True)

    def close(self) -> None:
        """Stop watching; files stay."""
        for output in self._live.values():
            self._rest(output)
        self._live.clear()
        self._watch.close()

    def _look(self, output: Output, ended: bool = False) -> None:
        """Book what is new, keep to the limit, answer those who wait."""
        before = output.end
        grown = output.look()
        output.looked = self._loop.time()
        now = time.time()
        if grown and now - output.marked >= _MARK_EVERY:
            output.mark(before, now)
        if self._limit:
            output.trim(self._limit)
        if not (grown or ended):
            return
        waiting = list(output.waiting.values())
        output.waiting.clear()
        for request, offset, reply in waiting:
            reply(partial(output.page, request, offset, ended))

    def _stir(self, output: Output) -> None:
        output.watch = None
        with suppress(OSError):
            self._look(output)
            self._later(output, _READER_PAUSE if output.waiting else _QUIET_PAUSE)

    def _later(self, output: Output, seconds: float) -> None:
        if output.timer is not None:
            output.timer.cancel()
        output.timer = self._loop.call_later(max(0.0, seconds), self._arm, output)

    def _arm(self, output: Output) -> None:
        """Watch first, then look: what was written in between is seen either way. Where the
        kernel has no watch left, looking now and then is what remains."""
        output.timer = None
        with suppress(OSError):
            output.make()
            output.watch = self._watch.once(output.path, lambda: self._stir(output))
            self._look(output)
            if output.watch is None:
                self._later(output, _QUIET_PAUSE)

    def _rest(self, output: Output) -> None:
        if output.timer is not None:
            output.timer.cancel()
            output.timer = None
        if output.watch is not None:
            self._watch.cancel(output.watch)
            output.watch = None
