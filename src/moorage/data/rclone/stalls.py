"""Whether the store of a mount answers. rclone waits for one that is silent, a minute and more,
and says nothing of it; so where somebody waits for the mount, or it uploads, and nothing moves,
the store is asked, by that rclone, for something small.

A mount that nobody waits for asks nothing; one with a cache is asked every few seconds whether it
uploads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from moorage.data.rclone.mount import RcloneMount
from moorage.data.rclone.rc import Unreachable
from moorage.protocol.stores import DEFAULT
from moorage.specs.mounts import Bucket
from moorage.units import format_duration

QUIET = 3
"""Looks at which nothing has moved, before the store itself is asked."""
PATIENCE = 3.0
"""Seconds that it has for an answer."""
_SOON = 2.0
"""Seconds that rclone has to say what it knows itself."""
_SELDOM = 5
"""Looks between two at a mount that nobody waits for."""
_SLOWER = 1.5
"""What is said is said again when it has lasted so many times as long."""


class Stall:
    """Of one mount's store. `look` is called once a second, on one thread, and never blocks."""

    def __init__(
        self, mount: RcloneMount, bucket: Bucket, tell: Callable[[str, float | None], None]
    ) -> None:
        """`tell` gets what is to be shown, and since when (Unix seconds) the store is silent;
        None: it answers again."""
        self._mount, self._bucket, self._tell = mount, bucket, tell
        self._uploads = bucket.mode == "cached" and not bucket.read_only
        self._since = 0.0
        self._again = 0.0
        self._asking: threading.Thread | None = None
        self._began = 0.0
        self._answers: bool | None = None
        self._mark: tuple[int, int, int] | None = None
        self._quiet = self._looks = 0

    def look(self, wanted: bool) -> None:
        """`wanted`: somebody waits for the mount."""
        if self._asking is not None:
            if self._asking.is_alive():
                return
            self._asking = None
            self._learn()
        self._looks += 1
        seldom = not self._uploads or self._looks % _SELDOM
        if wanted or self._quiet or self._since or not seldom:
            self._answers, self._began = None, time.time()
            self._asking = threading.Thread(
                target=self._ask, args=(wanted,), name="asks a store", daemon=True
            )
            self._asking.start()

    def forget(self) -> None:
        """The process is a new one."""
        self._mark, self._quiet = None, 0

    def _ask(self, wanted: bool) -> None:
        control = self._mount.control
        try:
            if not (wanted or self._since or (self._uploads and control.uploading(_SOON))):
                self._quiet = 0
                return
            mark = control.mark(_SOON)
        except Unreachable:
            return  # of an rclone that hangs somebody else tells
        moved, self._mark = self._mark not in (None, mark), mark
        self._quiet = 0 if moved else self._quiet + 1
        if moved and self._since == 0:
            return
        if self._quiet >= QUIET or self._since:
            self._answers = moved or control.store_answers(self._bucket.bucket, PATIENCE)

    def _learn(self) -> None:
        now = time.time()
        if self._answers:
            lasted, self._since, self._quiet = now - self._since, 0.0, 0
            if self._again:
                self._again = 0.0
                self._tell(f"waited {format_duration(lasted)} for store {self._name}", None)
        elif self._answers is False:
            self._since = self._since or self._began - QUIET + 1
            silent = now - self._since
            if now >= self._again:
                self._again = self._since + silent * _SLOWER
                text = f"store {self._name} has not answered for {format_duration(silent)}"
                self._tell(f"stalled: {text}", self._since)

    @property
    def _name(self) -> str:
        return self._bucket.store or DEFAULT
