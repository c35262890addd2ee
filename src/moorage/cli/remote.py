"""Our side of a command that runs in a job: its output here, our input and signals there."""

from __future__ import annotations

import os
import select
import signal
import stat
from collections.abc import Iterable

from moorage import frames
from moorage.cli.render import say
from moorage.cli.screen import size
from moorage.cli.streaming import HELD, drain, write
from moorage.cli.websocket import Closed, WebSocket, read

LOST = 125
"""Exit code where nobody knows the command's."""
_KILLED = 137
_IN, _OUT = select.POLLIN, select.POLLOUT


class Remote:
    """One command, by its stream; `terminal`: it has one, and ours is raw."""

    def __init__(self, server: WebSocket, takes_input: bool, terminal: bool) -> None:
        self._server = server
        self._terminal = terminal
        self._pieces = frames.Pieces()
        self._held = {frames.OUTPUT: bytearray(), frames.ERRORS: bytearray()}
        self._sinks = {frames.OUTPUT: _unblocked(1), frames.ERRORS: _unblocked(2)}
        self._input = takes_input
        self._code: int | None = None
        if not takes_input:
            server.send(frames.piece(frames.INPUT, b""))

    def attend(self, *passed_on: signal.Signals) -> int:
        """Until it has ended; its exit code. The signals go to it in place of us."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        watched = [*passed_on, *((signal.SIGWINCH,) if self._terminal else ())]
        before = {number: signal.signal(number, _noted) for number in watched}
        old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            for message in self._server.ready():
                self._take(message)
            while self._code is None:
                self._round(reader)
        except (Closed, frames.Torn) as error:
            if self._code is None:
                say(f"error: how the command ended is unknown: {error}")
        finally:
            signal.set_wakeup_fd(old)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)
            for channel, held in self._held.items():
                drain(self._sinks[channel], held)
            for sink in set(self._sinks.values()) - {1, 2}:
                os.close(sink)
        return LOST if self._code is None else self._code

    def _round(self, reader: int) -> None:
        server, poll = self._server, select.poll()
        room = all(len(held) < HELD for held in self._held.values())
        poll.register(server, (_IN if room else 0) | (_OUT if server.outgoing else 0))
        poll.register(reader, _IN)
        if self._input and len(server.outgoing) < HELD:
            poll.register(0, _IN)
        for channel, held in self._held.items():
            if held:
                poll.register(self._sinks[channel], _OUT)
        ready = dict(poll.poll())
        if reader in ready:
            self._signalled(os.read(reader, 256))
        if self._input and 0 in ready:
            self._forward()
        for channel, held in self._held.items():
            if held and self._sinks[channel] in ready:
                write(self._sinks[channel], held)
        if ready.get(server.fileno(), 0) & ~_OUT:
            for message in server.receive():
                self._take(message)
        server.flush()

    def _take(self, message: bytes) -> None:
        for channel, data in self._pieces.take(message):
            if channel == frames.EXIT:
                self._code = data[0] if data else _KILLED
            elif channel in self._held:
                self._held[channel] += data

    def _forward(self) -> None:
        data = read(0)
        if data is None:
            return
        for start in range(0, len(data) or 1, frames.LARGEST):
            self._server.send(frames.piece(frames.INPUT, data[start : start + frames.LARGEST]))
        self._input = bool(data)

    def _signalled(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                self._server.send(frames.size(*size()))
            else:
                self._server.send(frames.piece(frames.SIGNAL, bytes([number])))


def _unblocked(descriptor: int) -> int:
    """The same pipe or terminal, opened once more: a write does not block, which would keep
    signals waiting, and whoever else has it is not touched."""
    kind = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(kind) or stat.S_ISCHR(kind)):
        return descriptor
    try:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:  # another user's
        return descriptor


def _noted(_number: int, _frame: object) -> None:
    """The pipe has it."""
