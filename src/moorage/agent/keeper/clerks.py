"""The keeper's part in a job's `fsync` that returns after the upload: it keeps what the kernel
needs to tell of those calls, and somebody beside the job who answers them. Standard library only.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import threading

from moorage.agent.keeper import spawning
from moorage.agent.keeper.loop import Loop, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_DEFAULTS = (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ)
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from moorage.agent.fsyncs.clerk import main; main(sys.argv[2])"
)
_HIGH = 64
"""Above the numbers that descriptors get in the clerk."""
_PAUSE = 0.5
"""Seconds before one that died is started again; the first time at once."""
_RIGHTS = struct.Struct("i")


class NotHeld(Exception):
    """The kernel refuses; its word for it."""


class Clerk:
    """Of one job. Its process starts with the first call, and anew where it dies; then it answers
    what waits."""

    def __init__(
        self, loop: Loop, listener: int, mounts: list[str], known: dict[int, Clerk]
    ) -> None:
        """`listener` becomes its own; `mounts`: directories; `known`: by their processes."""
        self._loop, self._known = loop, known
        self._told = json.dumps({"mounts": mounts})
        reader, self._teller = os.pipe2(os.O_CLOEXEC)
        journal = os.memfd_create("calls", os.MFD_CLOEXEC)
        self._given = [_above(one) for one in (reader, listener, journal)]
        self._mounts = mounts
        self._beside: list[Clerk] = []
        self._pid = 0
        self._deaths = 0
        self._watched = self._given[1]
        loop.watch(self._watched, self._called)

    def _called(self, events: int) -> None:
        """The first call: a job that never makes one needs nobody."""
        if events & (select.EPOLLIN | select.EPOLLHUP):  # else a signal came while it was asked
            self._unwatch()
        if events & select.EPOLLIN:
            self._start()
        elif events & select.EPOLLHUP:
            self._close()

    def _unwatch(self) -> None:
        if self._watched >= 0:
            self._loop.unwatch(self._watched)
            self._watched = -1

    def _start(self) -> None:
        if not self._given:
            return
        told, listener, journal = self._given
        words = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, sys.path[0], self._told]
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        files = [told, null, 2, listener, journal]  # its last words go to the keeper's log
        try:
            self._pid = spawning.spawn(words, {"PATH": os.defpath}, files, _DEFAULTS)
        except OSError as error:
            say(f"nobody answers fsync: {error.strerror}")
            self._loop.later(_PAUSE, self._start)
            return
        finally:
            os.close(null)
        self._known[self._pid] = self

    def died(self) -> None:
        """Its process is dead."""
        del self._known[self._pid]
        if not self._given:
            return
        if _deserted(self._given[1]):
            self._close()
            return
        self._loop.later(_PAUSE if self._deaths else 0.0, self._start)
        self._deaths += 1

    def beside(self, work: Callable[[], Any]) -> Any:
        """Do the work, in a thread, and have the calls of what it starts answered as the job's,
        whose child it is not. OSError, and what the work raises."""
        done: dict[str, Any] = {}

        def run() -> None:
            try:
                done["listener"] = holder()()
                done["result"] = work()
            except NotHeld as error:
                done["error"] = OSError(0, f"its fsync cannot be held: {error}")
            except BaseException as error:
                done["error"] = error

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if "listener" in done:
            other = Clerk(self._loop, done["listener"], self._mounts, self._known)
            self._beside = [*(one for one in self._beside if one._given), other]
        if "error" in done:
            raise done["error"]
        return done["result"]

    def end(self) -> None:
        """The job has ended. Its process may have something to break off still."""
        if self._given:
            self._unwatch()
            os.write(self._teller, b"x")
            self._close()
        for other in self._beside:
            other.end()

    def _close(self) -> None:
        """There is nobody left to be answered."""
        for descriptor in (self._teller, *self._given):
            os.close(descriptor)
        self._given = []


def _deserted(listener: int) -> bool:
    """Whether all whose calls are told there have ended (before Linux 5.9 nobody says so)."""
    poller = select.poll()
    poller.register(listener, 0)
    return any(events & select.POLLHUP for _, events in poller.poll(0))


def _above(descriptor: int) -> int:
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    finally:
        os.close(descriptor)


def holder() -> Callable[[], int]:
    """`fsyncs.calls.hold`, which is loaded only where it is needed, and now: whoever calls it may
    have the job's root by then. It raises NotHeld."""
    from moorage.agent.fsyncs import calls

    def hold() -> int:
        try:
            return calls.hold()
        except OSError as error:
            raise NotHeld(error.strerror) from error

    return hold


class Handover:
    """For a fork, which hands the descriptor to its parent. What it needs is loaded now: it may
    have another root by then."""

    def __init__(self) -> None:
        self._call = holder()
        self._here, self._there = socket.socketpair()

    def hold(self) -> None:
        """In the fork. NotHeld."""
        listener = self._call()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _RIGHTS.pack(listener))]
        self._there.sendmsg([b"x"], rights)
        os.close(listener)

    def received(self) -> int:
        """In the parent, once: the descriptor that came; -1 for none."""
        with self._here, self._there:
            self._here.setblocking(False)
            try:
                _, found, _, _ = self._here.recvmsg(1, socket.CMSG_SPACE(_RIGHTS.size))
            except OSError:
                return -1
        return int(_RIGHTS.unpack(found[0][2])[0]) if found else -1
