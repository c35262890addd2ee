"""Terminals of commands in a job, made where the command sees them. Standard library only
(keeper)."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import termios

_INT = array.array("i").itemsize


def make(rows: int, columns: int) -> tuple[int, int]:
    """Our end and the command's, of that size, in the present mount namespace. OSError."""
    ours, theirs = os.openpty()
    resize(ours, rows, columns)
    return ours, theirs


def resize(terminal: int, rows: int, columns: int) -> None:
    """The programs on it get SIGWINCH. OSError."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def take(terminal: int) -> None:
    """Begin a session with this terminal as its own, and as standard input, output and errors.
    OSError."""
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(terminal, number)


def hand_over(channel: socket.socket, terminal: int) -> None:
    """Give a descriptor to the process on the other end of a pair of sockets. OSError."""
    rights = array.array("i", [terminal])
    channel.sendmsg([b"t"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def receive(channel: socket.socket) -> int:
    """The descriptor; -1 where the other side ended without one."""
    data, extra, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(_INT))
    for level, kind, content in extra:
        if data and (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found = array.array("i", content[:_INT])[0]
            os.set_inheritable(found, False)
            return found
    return -1
