"""A command in a job, for somebody who looks in: its files are channels of one stream, and it is
gone when the stream is. Standard library only (keeper)."""

from __future__ import annotations

import os
import select
import signal
import socket

from moorage import frames
from moorage.agent.visits import ending, entering, terminal
from moorage.agent.visits.entering import Job, NotEntered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_HELD = 4 * frames.LARGEST
"""Bytes for a side that does not read; the other is not read meanwhile."""
_IN, _OUT = select.POLLIN, select.POLLOUT
_SIGNALS = frozenset(
    (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
)


def serve(job: Job, wanted: dict[str, Any], agent: socket.socket, ended: int, rest: bytes) -> None:
    """Run it. `rest`: bytes of the stream that have come already; `ended`: readable when the job's
    process has ended. OSError, NotEntered."""
    running = _with_terminal(job, wanted) if wanted.get("terminal") else _with_pipes(job, wanted)
    ending.answer(agent)
    agent.setblocking(False)
    running.attend(agent, ended, rest)


def _with_pipes(job: Job, wanted: dict[str, Any]) -> Running:
    pipes = [os.pipe() for _ in range(3)]
    theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
    pid = _fork()
    if pid == 0:
        os.setsid()
        for number, descriptor in enumerate(theirs):
            os.dup2(descriptor, number)
        _become(job, wanted)
    for descriptor in theirs:
        os.close(descriptor)
    outputs = {pipes[1][0]: frames.OUTPUT, pipes[2][0]: frames.ERRORS}
    return Running(pid, pipes[0][1], outputs, -1)


def _with_terminal(job: Job, wanted: dict[str, Any]) -> Running:
    """The terminal is made in the job's view, so that its name means something there."""
    ours, theirs = socket.socketpair()
    pid = _fork()
    if pid == 0:
        ours.close()
        _become(job, wanted, theirs)
    theirs.close()
    with ours:
        end = terminal.receive(ours)
        why = "" if end >= 0 else ours.recv(4096).decode(errors="replace")
    if end < 0:
        os.waitpid(pid, 0)
        raise NotEntered(why or "the job has no terminals")
    return Running(pid, end, {end: frames.OUTPUT}, end)


def _fork() -> int:
    agent_signals = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, agent_signals)
    return pid


def _become(job: Job, wanted: dict[str, Any], channel: socket.socket | None = None) -> NoReturn:
    """What the fork does."""
    try:
        env = job.environment()
        end, theirs = -1, -1
        if channel is None:
            entering.enter(job)
        else:
            env["TERM"] = wanted.get("term") or "xterm"
            size = (wanted.get("rows", 24), wanted.get("columns", 80))
            entering.enter(job)
            end, theirs = terminal.make(*size)
            terminal.take(theirs)
            terminal.hand_over(channel, end)
        entering.execute(wanted["argv"], env)
    except (NotEntered, OSError) as error:
        if channel is None:
            entering.complain(str(error))
        else:
            channel.sendall(b"x" + str(error).encode())
    finally:
        os._exit(entering.NOT_ENTERED)


class Running:
    """The command and its files: `files` are ours to read, by their channels, `sink` is its
    standard input, `screen` the terminal, -1 where it has none."""

    def __init__(self, pid: int, sink: int, files: dict[int, int], screen: int) -> None:
        self._pid, self._sink, self._files, self._screen = pid, sink, files, screen
        self._died = os.pidfd_open(pid)
        self._pieces = frames.Pieces()
        self._input = bytearray()
        self._sent = bytearray()
        """What the agent has yet to take."""
        self._closing = False
        """No more input comes."""
        for descriptor in {sink, *files}:
            os.set_blocking(descriptor, False)

    def attend(self, agent: socket.socket, ended: int, rest: bytes) -> None:
        """Pass on until the command or the visit has ended; then neither goes on."""
        try:
            self._take(rest)
            while self._round(agent, ended):
                pass
        except (ConnectionError, frames.Torn):
            ending.end_all(ending.HUP_PATIENCE)

    def _round(self, agent: socket.socket, ended: int) -> bool:
        poll = select.poll()
        poll.register(self._died, _IN)
        poll.register(ended, _IN)
        wanted = (_IN if len(self._input) < _HELD else 0) | (_OUT if self._sent else 0)
        poll.register(agent, wanted)
        if len(self._sent) < _HELD:
            for descriptor in self._files:
                poll.register(descriptor, _IN)
        if self._input and self._sink >= 0:
            both = _IN if self._sink in self._files and len(self._sent) < _HELD else 0
            poll.register(self._sink, _OUT | both)
        ready = dict(poll.poll())
        for descriptor in [one for one in self._files if ready.get(one, 0) & ~_OUT]:
            self._read(descriptor)
        if self._sink in ready:
            self._write()
        if self._died in ready:
            self._finish(agent)
            return False
        if ended in ready:
            ending.end_all(0.0)
            self._finish(agent)
            return False
        self._talk(agent, ready.get(agent.fileno(), 0))
        return True

    def _talk(self, agent: socket.socket, events: int) -> None:
        """ConnectionError: nobody is there any more."""
        if events & _OUT:
            del self._sent[: agent.send(self._sent)]
        if events & ~_OUT:
            data = agent.recv(frames.LARGEST)
            if not data:
                raise ConnectionResetError
            self._take(data)

    def _take(self, data: bytes) -> None:
        for channel, body in self._pieces.take(data):
            if channel == frames.INPUT:
                self._closing = self._closing or not body
                self._input += body
                if not self._input:
                    self._close_input()
            elif channel == frames.SIZE and self._screen >= 0:
                terminal.resize(self._screen, *frames.read_size(body))
            elif channel == frames.SIGNAL and body and body[0] in _SIGNALS:
                self._signal(body[0])

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:
            pass

    def _read(self, descriptor: int) -> bool:
        """Whether there may be more."""
        try:
            data = os.read(descriptor, frames.LARGEST)
        except BlockingIOError:
            return False
        except OSError:  # the last program has let go of the terminal
            data = b""
        channel = self._files[descriptor]
        self._sent += frames.piece(channel, data)
        if not data:
            del self._files[descriptor]
            if descriptor != self._sink:
                os.close(descriptor)
        return bool(data)

    def _write(self) -> None:
        try:
            del self._input[: os.write(self._sink, self._input[: frames.LARGEST])]
        except BlockingIOError:
            return
        except OSError:  # it reads no more
            self._input.clear()
            self._closing = True
        if not self._input:
            self._close_input()

    def _close_input(self) -> None:
        if self._closing and self._sink >= 0 and self._screen < 0:
            os.close(self._sink)
            self._sink = -1

    def _finish(self, agent: socket.socket) -> None:
        """Send what it wrote last, and how it ended; its own children may go on."""
        for descriptor in list(self._files):
            while descriptor in self._files and self._read(descriptor):
                self._flush(agent)
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        except ChildProcessError:  # the job ended first, and it with the job
            code = -signal.SIGKILL
        code = 128 - code if code < 0 else code
        self._sent += frames.piece(frames.EXIT, bytes([code]))
        self._flush(agent)

    def _flush(self, agent: socket.socket) -> None:
        agent.setblocking(True)
        agent.sendall(self._sent)
        self._sent.clear()
        agent.setblocking(False)
