"""A supervisor for each mount: what became of its rclone is seen at once, what hangs within a
second or two; it is ended, started anew on the same cache, and shown where it was.

It is a thread of the agent, and touches the mount only by one further thread, which may hang with
it. A mount that nobody waits for costs one look at a number of the kernel's each second.

Processes that were killed and wait for a mount cannot go before they have an answer. Where the
store gives none, the end of rclone does: the kernel then ends the connection. What is in the cache
is kept, and uploaded by the next rclone once the flush wants that.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable

import msgspec

from moorage.data.base import SourceError
from moorage.data.rclone import fsyncs, fuse
from moorage.data.rclone.mount import RcloneMount
from moorage.data.rclone.rc import Unreachable
from moorage.data.rclone.stalls import Stall
from moorage.protocol.mounts import MountHealth
from moorage.specs.mounts import Bucket

log = logging.getLogger("moorage.agent")

LOOK = 1.0
"""Seconds between two looks at whether somebody waits for an answer."""
HANGS = 8.0
"""Seconds without a single answer after which it is ended: one that is slow may still answer."""
_PAUSES = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_STABLE = 30.0
"""Seconds after which a start counts as having worked."""

_SOON = 2.0
"""Seconds that rclone has for what it knows itself."""
_STREAMS = 5.0
"""Seconds without a byte after which a file that is being streamed is given up, where whoever
wrote it was killed."""
_LET_GO = "ended with its job: its store did not answer"

Tell = Callable[[MountHealth], None]


class Watch:
    """Of one mount, from now until `stop`."""

    def __init__(self, mount: RcloneMount, bucket: Bucket) -> None:
        """`tell` is called on a thread with what is to be shown of it; `doomed` whether those who
        use it were killed."""
        self._mount = mount
        self._health = MountHealth(bucket.target, restarts=mount.restarts())
        self._restarted = self._stalled = self._unstored = ""
        self._durable = bucket.durable == "fsync"
        self._hung = False
        self._asked: threading.Event | None = None
        """Set by an answer to what its process was asked last; None: it has answered."""
        self.tell: Tell = _silent
        self.doomed: Callable[[], bool] = _never
        self._streams = bucket.mode == "mount" and not bucket.read_only
        self._stall = Stall(mount, bucket, self._note_stall)
        self._streamed: tuple[tuple[int, int, int], float] | None = None
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC)
        self._needed = os.eventfd(0, os.EFD_CLOEXEC)
        self._failed = 0
        self._started = time.monotonic()
        name = f"mount {mount.directory.parents[1].name}/{mount.directory.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer; returns when nothing is started any more."""
        if self._thread.is_alive():
            os.write(self._wake, b"x")
            self._thread.join()
        for descriptor in (self._wake, self._woken, self._needed):
            os.close(descriptor)

    def need(self) -> None:
        """Start it again, also after it was let go of: its cache is to be uploaded."""
        os.eventfd_write(self._needed, 1)

    def _run(self) -> None:
        try:
            while self._live():
                pass
        except Exception:
            log.exception("%s: its supervisor broke", self._thread.name)

    def _live(self) -> bool:
        """One life of the process; False once watching is to end."""
        process = self._mount.pidfd()
        why = "its process ended"
        if process >= 0:
            try:
                if not self._mount.shown:
                    self._mount.kill()
                why = self._until_end(process)
            finally:
                os.close(process)
        if why == _LET_GO:
            self._note_restart(why)
            log.warning("%s: %s", self._thread.name, why)
            if self._woken in select.select([self._woken, self._needed], [], [])[0]:
                return False
        return bool(why) and self._revive(why)

    def _until_end(self, process: int) -> str:
        """Why it must be started anew; nothing once watching is to end."""
        poller = select.poll()
        poller.register(process, select.POLLIN)
        poller.register(self._woken, select.POLLIN)
        silent = 0.0
        self._hung, self._asked = False, None
        while True:
            ready = {descriptor for descriptor, _ in poller.poll(LOOK * 1000)}
            if self._woken in ready:
                return ""
            if process in ready:
                return "its process ended"
            if self._durable:
                self._look_for_failures()
            wanted = self._wanted()
            if wanted and self.doomed() and self._let_go():
                return _LET_GO
            if not wanted or self._answers():
                if self._hung:
                    self._note_stall("answers again", None)
                self._hung = False
                self._stall.look(wanted)
            elif not self._hung:
                self._hung, silent = True, time.monotonic()
                self._note_stall("does not answer", time.time())
            elif time.monotonic() - silent > HANGS:
                self._mount.kill()
                return "it hung"

    def _look_for_failures(self) -> None:
        count, text = fsyncs.failed(self._mount.directory)
        if text != self._unstored:
            self._unstored = text
            self._say(msgspec.structs.replace(self._health, unstored=count))

    def _wanted(self) -> bool:
        """Whether somebody waits for it, as far as that can be known."""
        device = self._mount.device()
        return device is not None and fuse.waiting(device) != 0

    def _let_go(self) -> bool:
        """End the wait of those that were killed; False where a file is on its way still."""
        return not (self._streams and self._streaming()) and self._mount.kill()

    def _streaming(self) -> bool:
        """Whether bytes go into the store. Where they no longer do, the files are noted as lost:
        nothing of them is on the node."""
        control = self._mount.control
        try:
            names, mark = control.uploads(_SOON), control.mark(_SOON)
        except Unreachable:
            return False
        now = time.monotonic()
        if self._streamed is None or self._streamed[0] != mark:
            self._streamed = (mark, now)
        if names and now - self._streamed[1] >= _STREAMS:
            self._mount.note_lost(names)
            return False
        return bool(names)

    def _answers(self) -> bool:
        """Whether its process does; a late answer is one too."""
        if self._asked is not None:
            return self._answered(self._asked)
        answered = threading.Event()

        def ask() -> None:
            try:
                os.statvfs(self._mount.place)
            except OSError:
                pass  # an answer too; of one that died the descriptor tells
            answered.set()

        threading.Thread(target=ask, name=f"{self._thread.name} asks", daemon=True).start()
        return self._answered(answered)

    def _answered(self, asked: threading.Event) -> bool:
        self._asked = None if asked.wait(LOOK) else asked
        return self._asked is None

    def _revive(self, why: str) -> bool:
        if time.monotonic() - self._started > _STABLE:
            self._failed = 0
        pause = _PAUSES[min(self._failed, len(_PAUSES) - 1)]
        self._failed += 1
        if select.select([self._woken], [], [], pause)[0]:
            return False
        self._started = time.monotonic()
        try:
            self._mount.kill()
            self._mount.start(self._woken)
        except (SourceError, OSError) as error:
            self._note_restart(f"{why}; {error}")
            log.warning("%s: %s; %s", self._thread.name, why, error)
            return not select.select([self._woken], [], [], 0)[0]
        self._stall.forget()
        count = self._mount.note_restart(why)
        times = "once" if count == 1 else f"{count} times"
        unseen = "" if self._mount.comes_back else "; what runs sees it no more (ENOTCONN)"
        self._note_restart(f"restarted {times}: {why}{unseen}", count)
        log.warning("%s: restarted: %s", self._thread.name, why)
        return True

    def _note_restart(self, text: str, count: int | None = None) -> None:
        """What became of its process; a silent one is no more."""
        self._restarted = text
        count = self._health.restarts if count is None else count
        self._say(msgspec.structs.replace(self._health, restarts=count))
        if self._hung:
            self._note_stall("", None)

    def _note_stall(self, text: str, since: float | None) -> None:
        """Who does not answer, and since when; None: it answers."""
        self._stalled = text
        self._say(msgspec.structs.replace(self._health, stalled=since))

    def _say(self, health: MountHealth) -> None:
        told = (self._restarted, self._unstored, self._stalled)
        message = "; ".join(filter(None, told))
        self._health = msgspec.structs.replace(health, message=message)
        self.tell(self._health)


def _silent(_health: MountHealth) -> None:
    """Where nobody wants to know."""


def _never() -> bool:
    """Where nobody knows."""
    return False
