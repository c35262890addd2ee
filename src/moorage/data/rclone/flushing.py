"""Wait until all that was written through a mount is in its bucket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from moorage.data.buckets import Moved, NotFlushed
from moorage.data.rclone import fuse
from moorage.data.rclone.mount import RcloneMount
from moorage.data.rclone.rc import Control, Queued, Unreachable
from moorage.data.stopping import breaking

_FIRST, _LAST = 0.005, 0.5
"""Seconds between two questions, growing: rclone tells nobody when its queue is empty."""
_HANGS = 5.0
"""Seconds without an answer after which it is ended; its supervisor starts it again."""
_LOST = "files were being written when the job was killed, and the store did not answer"
LISTED = 100
"""Files that an error names."""


class Broken(Exception):
    """The waiting was broken off; nothing is known."""


class Flush:
    """One. What an rclone that was killed had not uploaded, its successor uploads."""

    def __init__(self, mount: RcloneMount, cached: bool) -> None:
        self._mount = mount
        self._cached = cached
        self._hurried: set[int] = set()
        self._total = 0

    def over(self) -> bool:
        """Whether nothing is left, whatever the store and its rclone do. To be asked when nobody
        uses the mount any more. NotFlushed."""
        return self._over(0 if self._cached else self._left())

    def _over(self, left: int) -> bool:
        if self._cached:  # it notes on the disk what it is given, before that is closed
            device = self._mount.device()
            asked = None if device is None else fuse.waiting(device)
            return not asked and not self._mount.dirty(1)
        if lost := self._mount.lost():
            raise NotFlushed(_LOST, lost, kept=False)
        # What was streamed is gone with its process.
        return left == 0 or (left == -1 and self._mount.find() is None)

    def wait(self, tell: Callable[[Moved], None], patience: float) -> None:
        """Returns when all is there. NotFlushed after `patience` seconds in which not a byte
        moved; Broken where the work is to end."""
        stopped = threading.Event()
        pause, since, mark = _FIRST, time.monotonic(), None
        with breaking(stopped.set):
            while True:
                left = self._left()
                if self._over(left) and not (self._cached and self._mount.upload_again()):
                    return
                now = time.monotonic()
                if left != mark:
                    mark, since = left, now
                    self._tell(left, tell)
                elif now - since >= patience:
                    files = self._mount.dirty(LISTED)
                    if self._cached and left == -1 and not files:
                        return  # somebody's reading hangs, and all that was written is there
                    raise NotFlushed(self._reason(), files)
                if stopped.wait(pause):
                    raise Broken
                pause = min(pause * 1.5, _LAST)

    def _tell(self, left: int, tell: Callable[[Moved], None]) -> None:
        if left > 0:
            self._total = max(self._total, left)
            tell(Moved(self._total - left, self._total))

    def _left(self) -> int:
        """Bytes, and where that is unknown what is negative; 0: nothing."""
        control = self._mount.control
        began = time.monotonic()
        try:
            device = self._mount.device()
            # First of all: a file that is being released is in no queue yet.
            asked = fuse.waiting(device) if device is not None else None
            moving = {one.name: one.bytes for one in control.transfers()}
            if not self._cached:
                return -1 - sum(moving.values()) if moving or asked else 0
            queue = control.queue()
            self._hurry(control, queue)
            left = sum(max(0, one.size - moving.get(one.name, 0)) for one in queue)
            return left or (-1 if asked or queue else 0)
        except Unreachable:
            if time.monotonic() - began > _HANGS:
                # Nobody uses the mount any more, so that its supervisor cannot see that it hangs.
                self._mount.kill()
            return -1

    def _hurry(self, control: Control, queue: list[Queued]) -> None:
        for one in queue:
            # Each once, as what failed must rest; and where it was opened and closed since.
            delayed = one.expiry > 0 and one.tries == 0
            if not one.uploading and (delayed or one.id not in self._hurried):
                self._hurried.add(one.id)
                control.hurry(one)

    def _reason(self) -> str:
        try:
            said = self._mount.control.last_error()
        except Unreachable as error:
            # One that is being started waits for the store before it is mounted.
            said = "" if self._mount.device() is None else str(error)
        return said or self._mount.last_error() or "nothing moves: the store does not answer"
