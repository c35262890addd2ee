"""Who answers the held calls of one job: a process beside it, started by the keeper, and started
again where it dies. Standard library only.

A file that is none of the job's mounts with `durable: fsync` is the kernel's affair at once. Else
the call returns when the file is in the bucket, or with EIO; each in a thread of its own.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import select
import signal
import struct
import threading
import traceback

from moorage.agent.fsyncs import calls
from moorage.agent.fsyncs.calls import Call, Listener
from moorage.agent.fsyncs.journal import Journal
from moorage.agent.fsyncs.mounted import Mounted
from moorage.agent.fsyncs.remote import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TOLD, LISTENER, JOURNAL = 0, 3, 4
"""Descriptors it is started with. A byte on the first: the job has ended."""
_UNSEEN = 64
"""Calls that may have been received by a predecessor that died before it could note them."""
_STATX = {"x86_64": 332, "aarch64": 291}
_AT_FDCWD, _DONT_SYNC, _INODE = -100, 0x4000, 0x100
_DEVICE = struct.Struct("136xII")
_TABLE = "/proc/self/mountinfo"

_libc = ctypes.PyDLL(None, use_errno=True)


class Mounts:
    """Those of the job that promise something, by the device that their files are on. Each
    restart of an rclone makes another."""

    def __init__(self, directories: list[str]) -> None:
        self._mounts = {os.path.realpath(path): Mounted(path) for path in directories}
        self._devices: dict[int, Mounted] = {}
        self._table = open(_TABLE, "rb")  # noqa: SIM115 (as long as the process lives)
        self._changes = select.poll()
        self._changes.register(self._table, select.POLLPRI)
        self._read()

    def find(self, device: int) -> Mounted | None:
        """The mount with that device."""
        if os.major(device):  # of a disk
            return None
        if self._changes.poll(0):
            self._read()
        return self._devices.get(device)

    def end(self) -> None:
        """Returns when no upload goes on."""
        for mount in self._mounts.values():
            mount.end()

    def _read(self) -> None:
        self._table.seek(0)
        for line in self._table.read().splitlines():
            _, _, device, _, point, _ = line.split(b" ", 5)
            if b"\\" in point:
                point = point.decode("unicode_escape").encode("latin-1")
            top, _, name = os.fsdecode(point).rpartition("/")
            if name in ("at", "raw") and top in self._mounts:
                major, minor = map(int, device.split(b":"))
                self._devices[os.makedev(major, minor)] = self._mounts[top]


class Clerk:
    """Answers until the job has ended."""

    def __init__(self, listener: Listener, journal: Journal, mounts: Mounts) -> None:
        self._listener, self._journal, self._mounts = listener, journal, mounts

    def run(self) -> None:
        """Until there is nobody left who could call."""
        self._take_over()
        poller = select.poll()
        poller.register(TOLD, select.POLLIN)
        poller.register(self._listener.descriptor, select.POLLIN)
        while True:
            for descriptor, events in poller.poll():
                if descriptor == TOLD:
                    if os.read(TOLD, 1):
                        return
                    poller.unregister(TOLD)  # the keeper died; the job may go on for a while
                elif events & select.POLLIN:
                    self._next()
                else:
                    return

    def end(self) -> None:
        """Returns when nothing is uploaded that nobody waits for any more."""
        self._mounts.end()

    def _take_over(self) -> None:
        noted = {call.id: call for call in self._journal.entries()}
        waiting = {number for number in noted if self._listener.waits(number)}
        self._journal.settle(waiting)
        for number in waiting:
            self._begin(noted[number])
        last = max(noted, default=0)
        for number in range(last + 1, last + 1 + _UNSEEN) if last else ():
            self._listener.answer(number, errno.EIO)

    def _next(self) -> None:
        call = self._listener.receive()
        if call is not None:
            self._journal.note(call)
            self._begin(call)

    def _begin(self, call: Call) -> None:
        try:
            device = _device(f"/proc/{call.pid}/fd/{_number(call)}")
        except PermissionError:  # it hides what it does, and may mean a bucket
            self._listener.answer(call.id, errno.EIO)
            return
        except OSError:
            self._listener.proceed(call.id)  # the kernel knows the right error
            return
        mount = self._mounts.find(device)
        if mount is None:
            self._listener.proceed(call.id)
            return
        place = self._journal.keep(call)
        work = (call, mount, device, place)
        try:
            threading.Thread(target=self._carry_out, args=work, daemon=True).start()
        except RuntimeError:  # too many at once; a clerk that died of it would die again
            self._listener.answer(call.id, errno.EIO)
            self._journal.release(place)

    def _carry_out(self, call: Call, mount: Mounted, device: int, place: int) -> None:
        error = errno.EIO
        try:
            error = self._store(call, mount, device)
        except Exception:  # the caller must be answered
            traceback.print_exc()
        finally:
            self._listener.answer(call.id, error)
            self._journal.release(place)

    def _store(self, call: Call, mount: Mounted, device: int) -> int:
        """The error of the call; 0: it is in the bucket."""
        path = f"/proc/{call.pid}/fd/{_number(call)}"
        try:
            descriptor = _open(path, device)
        except OSError as error:
            removed = error.errno == errno.ENOENT and _removed(path)
            return 0 if removed else error.errno or errno.EIO
        try:
            root = _root(call.pid, descriptor)
            if not self._listener.waits(call.id):
                return errno.EINTR
            mount.stored(descriptor, root, call.name == calls.SYNCFS)
            return 0
        except (Failed, OSError) as error:
            mount.note_failure(descriptor, str(error))
            return errno.EIO
        finally:
            os.close(descriptor)


def _open(path: str, device: int) -> int:
    """To read it, unless it is on another device by now: the job may have put anything there
    since, and whoever answers may open more than the job may. OSError."""
    found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        again = f"/proc/self/fd/{found}"
        if _device(again) != device:
            raise OSError(errno.EIO, "it is another file by now")
        return os.open(again, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)


def _removed(path: str) -> bool:
    """Whether what is open has no name any more."""
    try:
        return os.readlink(path).endswith(" (deleted)")
    except OSError:
        return False


def _number(call: Call) -> int:
    return call.arguments[0] & 0xFFFFFFFF


def _device(path: str) -> int:
    """The device of what is at the end of the path, as far as the kernel knows it already: a
    file system that hangs must not hold up others. OSError."""
    found = ctypes.create_string_buffer(256)
    place = ctypes.c_char_p(os.fsencode(path))
    number = _STATX[platform.machine()]
    if _libc.syscall(number, _AT_FDCWD, place, _DONT_SYNC, _INODE, found):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return os.makedev(*_DEVICE.unpack_from(found))


def _root(pid: int, descriptor: int) -> str:
    """What of its file system is mounted where the job has found the file."""
    with open(f"/proc/self/fdinfo/{descriptor}") as file:
        wanted = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        for line in file:
            number, _, _, root, _ = line.split(b" ", 4)
            if number.decode() == wanted:
                return os.fsdecode(root.decode("unicode_escape").encode("latin-1"))
    return "/"


def main(told: str) -> None:
    """`told`: in JSON, the directories of the `mounts`."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    words: dict[str, Any] = json.loads(told)
    clerk = Clerk(Listener(LISTENER), Journal(JOURNAL), Mounts(words["mounts"]))
    clerk.run()
    clerk.end()
    os._exit(0)  # what its threads hold open is closed only now
