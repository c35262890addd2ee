"""A supervisor for each mount: what became of its rclone is seen at once, what hangs within a
second or two; it is ended, started anew on the same cache, and shown where it was.

It is a thread of the agent, and touches the mount only by one further thread, which may hang with
it. A mount that nobody waits for costs one look at a number of the kernel's each second.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable

from moorage.data.base import SourceError
from moorage.data.rclone import fuse
from moorage.data.rclone.mount import RcloneMount

log = logging.getLogger("moorage.agent")

LOOK = 1.0
"""Seconds between two looks at whether somebody waits for an answer."""
HANGS = 8.0
"""Seconds without a single answer after which it is ended: one that is slow may still answer."""
_PAUSES = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_STABLE = 30.0
"""Seconds after which a start counts as having worked."""

Tell = Callable[[str], None]


class Watch:
    """Of one mount, from now until `stop`."""

    def __init__(self, mount: RcloneMount, tell: Tell, hangs: float = HANGS) -> None:
        """`tell` is called on a thread with what is to be shown of it."""
        self._mount = mount
        self._hangs = hangs
        self.tell = tell
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC)
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
        os.close(self._wake)
        os.close(self._woken)

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
                why = self._until_end(process)
            finally:
                os.close(process)
        return bool(why) and self._revive(why)

    def _until_end(self, process: int) -> str:
        """Why it must be started anew; nothing once watching is to end."""
        poller = select.poll()
        poller.register(process, select.POLLIN)
        poller.register(self._woken, select.POLLIN)
        silent = 0.0
        while True:
            ready = {descriptor for descriptor, _ in poller.poll(LOOK * 1000)}
            if self._woken in ready:
                return ""
            if process in ready:
                return "its process ended"
            if self._answers():
                if silent:
                    self.tell("answers again")
                silent = 0.0
                continue
            if not silent:
                silent = time.monotonic()
                self.tell("does not answer")
            elif time.monotonic() - silent > self._hangs:
                self._mount.kill()
                return "it hung"

    def _answers(self) -> bool:
        """Whether it does, where somebody waits for it."""
        device = self._mount.device()
        if device is None or fuse.waiting(device) == 0:
            return True
        answered = threading.Event()

        def ask() -> None:
            try:
                os.statvfs(self._mount.place)
            except OSError:
                pass  # an answer too; of one that died the descriptor tells
            answered.set()

        threading.Thread(target=ask, name=f"{self._thread.name} asks", daemon=True).start()
        return answered.wait(LOOK)

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
            self.tell(f"{why}; {error}")
            log.warning("%s: %s; %s", self._thread.name, why, error)
            return not select.select([self._woken], [], [], 0)[0]
        count = self._mount.note_restart(why)
        times = "once" if count == 1 else f"{count} times"
        self.tell(f"restarted {times}: {why}")
        log.warning("%s: restarted: %s", self._thread.name, why)
        return True
