"""System calls that wait for somebody's word: a filter of the kernel's (seccomp) tells of each
`fsync` of the processes below it, and they sleep until it is answered. Standard library only
(keeper).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FSYNC, FDATASYNC, SYNCFS = "fsync", "fdatasync", "syncfs"
_URING = "io_uring_setup"
_NUMBERS = {
    "x86_64": {
        0xC000003E: {FSYNC: 74, FDATASYNC: 75, SYNCFS: 306, _URING: 425},
        0x40000003: {FSYNC: 118, FDATASYNC: 148, SYNCFS: 344, _URING: 425},
    },
    "aarch64": {
        0xC00000B7: {FSYNC: 82, FDATASYNC: 83, SYNCFS: 267, _URING: 425},
        0x40000028: {FSYNC: 118, FDATASYNC: 148, SYNCFS: 373, _URING: 425},
    },
}
"""By the machine: its own programs, and those of 32 bits that it runs too."""
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_X32 = 0x40000000
"""Added to the numbers by programs of the x32 kind."""
_SET_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 1, 38
_SPEC_ALLOW, _NEW_LISTENER, _WAIT_KILLABLE = 4, 8, 32
_ALLOW, _NOTIFY, _ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000
_LOAD, _EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
_RECEIVE, _ANSWER, _VALID, _FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40082104
_CONTINUE, _SYNC_WAKE_UP = 1, 1
_CALL = struct.Struct("QIIiIQ6Q")
_REPLY = struct.Struct("QqiI")
_OLDEST = (5, 5)
_ACTIONS = "/proc/sys/kernel/seccomp/actions_avail"

_libc = ctypes.CDLL(None, use_errno=True)


class Call:
    """One that waits. `pid` is the thread's."""

    __slots__ = ("arguments", "id", "name", "pid")

    def __init__(self, number: int, pid: int, name: str, arguments: tuple[int, ...]) -> None:
        self.id, self.pid, self.name, self.arguments = number, pid, name, arguments


def why_not() -> str:
    """Why this node cannot do it; empty where it can."""
    machine = platform.machine()
    if machine not in _NUMBERS:
        return f"it is not known for machines of kind {machine}"
    release = platform.release().split("-")[0].split(".")
    try:
        with open(_ACTIONS) as file:
            known = "user_notif" in file.read().split()
    except OSError:
        known = False
    if not known or tuple(map(int, release[:2])) < _OLDEST:
        return f"Linux 5.5 or newer with seccomp is needed, and this is {platform.release()}"
    return ""


def hold() -> int:
    """From now on the calls of this thread, and of what it starts, wait. The descriptor by which
    they are answered. OSError."""
    machine = platform.machine()
    words = list(_program(_NUMBERS[machine]))
    code = ctypes.create_string_buffer(b"".join(words))
    program = struct.pack("H6xQ", len(words), ctypes.addressof(code))
    for flags in (_WAIT_KILLABLE | _SPEC_ALLOW, _SPEC_ALLOW):
        found = _seccomp(_SECCOMP[machine], flags | _NEW_LISTENER, program)
        if found >= 0:
            return found
        if (number := ctypes.get_errno()) == errno.EACCES:  # without it only root may
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            found = _seccomp(_SECCOMP[machine], flags | _NEW_LISTENER, program)
            if found >= 0:
                return found
            number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def _seccomp(number: int, flags: int, program: bytes) -> int:
    place = ctypes.create_string_buffer(program)
    return int(_libc.syscall(number, _SET_MODE_FILTER, flags, place))


def _program(machines: dict[int, dict[str, int]]) -> Iterator[bytes]:
    """For each kind of program: load its call's number, compare, answer."""
    yield _word(_LOAD, 4)
    for kind, numbers in machines.items():
        waits = [numbers[name] for name in (FSYNC, FDATASYNC, SYNCFS)]
        yield _word(_EQUAL, kind, 0, 3 + 2 * (len(waits) + 1))
        yield _word(_LOAD, 0)
        yield _word(_AND, ~_X32 & 0xFFFFFFFF)
        for wait in waits:
            yield _word(_EQUAL, wait, 0, 1)
            yield _word(_RETURN, _NOTIFY)
        # Its fsync is no call that could wait; programs know how to do without.
        yield _word(_EQUAL, numbers[_URING], 0, 1)
        yield _word(_RETURN, _ERRNO | errno.ENOSYS)
        yield _word(_RETURN, _ALLOW)
    yield _word(_RETURN, _ALLOW)


def _word(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("HBBI", code, true, false, value)


class Listener:
    """The side that answers; `descriptor` becomes its own."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._names = {
            (kind, number): name
            for kind, numbers in _NUMBERS[platform.machine()].items()
            for name, number in numbers.items()
        }
        try:
            fcntl.ioctl(descriptor, _FLAGS, _SYNC_WAKE_UP)
        except OSError:  # before Linux 6.6 each answer takes some microseconds more
            pass

    def receive(self) -> Call | None:
        """The next one; blocks. None where it has gone before it could be read. OSError."""
        buffer = bytearray(_CALL.size)
        try:
            fcntl.ioctl(self.descriptor, _RECEIVE, buffer)
        except (FileNotFoundError, InterruptedError):
            return None
        number, pid, _, call, kind, _, *arguments = _CALL.unpack(buffer)
        name = self._names.get((kind, call & ~_X32), "")
        return Call(number, pid, name, tuple(arguments))

    def waits(self, number: int) -> bool:
        """Whether that call waits still: else its thread's number may be another's by now."""
        try:
            fcntl.ioctl(self.descriptor, _VALID, struct.pack("Q", number))
        except OSError:
            return False
        return True

    def proceed(self, number: int) -> bool:
        """Let the kernel do it; whether it has waited for that."""
        return self._answer(_REPLY.pack(number, 0, 0, _CONTINUE))

    def answer(self, number: int, error: int = 0) -> bool:
        """It has been done, or has failed; whether it has waited for that."""
        return self._answer(_REPLY.pack(number, 0, -error, 0))

    def _answer(self, reply: bytes) -> bool:
        try:
            fcntl.ioctl(self.descriptor, _ANSWER, reply)
        except OSError:
            return False
        return True
