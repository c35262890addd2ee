"""The keeper: starts the processes of jobs, waits for them, records how they ended. One for each
agent, in a session of its own, so that jobs run on while the agent crashes or is replaced.

It listens on `keeper.sock` in the agent's directory: one JSON object a line, in both directions
(`op` in requests, `event` in what comes unasked; fields that one side does not know are ignored).
Standard library only, and sparing with that: it stays in memory as long as there is work.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import select
import signal
import socket
import struct
import time
import zlib

from moorage.agent.keeper import visits
from moorage.agent.keeper.cgroup import Cgroups
from moorage.agent.keeper.loop import Loop, Timer, say
from moorage.agent.keeper.tending import Tender

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOCKET, PID, LOG = "keeper.sock", "keeper.pid", "keeper.log"
FORGETS_SEVERAL, CONTAINS, ENTERS, FENCES, ENGINES, HOLDS = 3, 4, 5, 6, 7, 8
PROTOCOL = 8
"""Of what is said on the socket; 1 did not say so. 2: `direct` in spawn requests. 3: `forget` of
several `keys`; a request without `id` gets no answer. 4: `container` in spawn requests.
5: `enter`. 6: `fenced` in spawn requests, `lease`, `unfence`. 7: `engine` in spawn requests.
8: `fsyncs` in spawn requests."""
OLDEST = 1
"""What an agent must speak to get on with this keeper."""
IDLE = 60.0
"""Seconds without a client after which the keeper ends if all it knows is on disk."""
_BACKLOG_LIMIT = 64 * 1024 * 1024
_GARBAGE = 20_000
"""Objects between two searches for garbage in cycles, of which jobs leave next to none."""
_PIECE = 64 * 1024
_MANY, _PACE = 8, 0.005
"""With that many jobs, seconds between two messages to a client: each wakes it, which costs both
more than what is said. The first after a pause goes at once."""
_PR_SET_CHILD_SUBREAPER = 36
_CREDENTIALS = struct.Struct("3i")


def group_name(home: str) -> str:
    """What the control groups of the agent in `home` are called: the same for every keeper, and
    another one for a container that has a home of the same path. OSError."""
    there = os.stat(home)
    place = f"{os.path.realpath(home)}@{there.st_dev:x}:{there.st_ino:x}"
    return f"{os.geteuid()}-{zlib.crc32(os.fsencode(place)):08x}"


class Client:
    """One connection."""

    __slots__ = ("due", "inbox", "outbox", "sent", "socket", "wanted")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.inbox = b""
        self.outbox = bytearray()
        self.due = False
        self.sent = 0.0
        self.wanted = select.EPOLLIN


class Keeper:
    """The socket's side; `tending.Tender` does the work."""

    def __init__(self, loop: Loop, listener: socket.socket, home: str) -> None:
        self._loop, self._listener = loop, listener
        self._clients: dict[int, Client] = {}
        self._idle: Timer | None = None
        self._tender = Tender(loop, _cgroups(home), self._exited)
        loop.watch(listener.fileno(), self._accept)
        self._watch_signals()
        self._consider_leaving()

    def close(self) -> None:
        """Say what is yet to be said, and let go of the groups that are empty."""
        for client in list(self._clients.values()):
            self._flush(client)
        self._tender.tidy()

    def _watch_signals(self) -> None:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._loop.watch(reader, lambda _events: self._signalled(reader))

    def _signalled(self, reader: int) -> None:
        numbers = os.read(reader, 4096)
        if signal.SIGTERM in numbers and not self._tender.busy():
            self._loop.stop()
        self._tender.reap()
        self._consider_leaving()

    def _accept(self, _events: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        size = _CREDENTIALS.size
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        if _CREDENTIALS.unpack(peer)[1] != os.geteuid():
            connection.close()
            return
        connection.setblocking(False)
        client = Client(connection)
        self._clients[connection.fileno()] = client
        self._loop.watch(connection.fileno(), lambda events: self._ready(client, events))

    def _ready(self, client: Client, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush(client)
        if events & ~select.EPOLLOUT:
            self._read(client)

    def _read(self, client: Client) -> None:
        try:
            data = client.socket.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        *lines, client.inbox = (client.inbox + data).split(b"\n")
        for line in lines:
            self._serve(client, line)

    def _serve(self, client: Client, line: bytes) -> None:
        if not self._loop.running:
            return  # what is started now would have no keeper; the next one may be asked
        number = None
        try:
            request = json.loads(line)
            number = request.get("id")
            self._dispatch(client, number, request)
        except (KeyError, OSError, TypeError, ValueError) as error:
            text = f"bad request: {type(error).__name__}: {error}"
            self._send(client, {"id": number, "error": text, "step": "request"})

    def _dispatch(self, client: Client, number: int | None, request: dict[str, Any]) -> None:
        def reply(answer: dict[str, Any]) -> None:
            if number is not None:
                self._send(client, {"id": number, **answer})

        operation, tender = request["op"], self._tender
        if operation == "spawn":
            tender.spawn(request, reply)
        elif operation == "stop":
            reply({"ok": tender.stop(request["key"], request["grace"], request["cause"])})
        elif operation == "list":
            reply(self._list())
        elif operation == "forget":
            for key in request.get("keys") or [request["key"]]:
                tender.forget(key)
            reply({"ok": True})
        elif operation == "lease":
            tender.fence.renew(request["until"])
        elif operation == "unfence":
            tender.unfence(request["keys"])
        elif operation == "enter":
            job = tender.jobs.get(request["key"])
            reply(visits.begin(job, request["directory"], request["name"]))
        elif operation == "bury":
            tender.bury(request["key"], request["directory"], reply)
        elif operation == "exit":
            idle = not tender.busy()
            reply({"ok": idle})
            if idle:
                self._loop.stop()
        else:
            raise ValueError(f"unknown operation {operation}")

    def _list(self) -> dict[str, Any]:
        jobs = self._tender.jobs.values()
        return {
            "protocol": PROTOCOL,
            "oldest": OLDEST,
            "running": [{"key": job.key, "pid": job.pid} for job in jobs if job.state != "ended"],
            "ended": [
                {"key": job.key, "record": job.settled} for job in jobs if job.state == "ended"
            ],
        }

    def _exited(self, key: str, record: dict[str, Any]) -> None:
        for client in list(self._clients.values()):
            self._send(client, {"event": "exit", "key": key, "record": record})
        self._consider_leaving()

    def _send(self, client: Client, message: dict[str, Any]) -> None:
        if client.socket.fileno() < 0:
            return
        client.outbox += json.dumps(message).encode() + b"\n"
        if not client.due:  # several messages of one round go out together
            client.due = True
            self._loop.at_end(lambda: self._pace(client))

    def _pace(self, client: Client) -> None:
        left = client.sent + _PACE - time.monotonic()
        if left > 0 and self._tender.live() >= _MANY:
            self._loop.later(left, lambda: self._flush(client))
        else:
            self._flush(client)

    def _flush(self, client: Client) -> None:
        client.due, client.sent = False, time.monotonic()
        fd = client.socket.fileno()
        if fd < 0:
            return
        try:
            sent = client.socket.send(client.outbox) if client.outbox else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(client)
            return
        del client.outbox[:sent]
        if len(client.outbox) > _BACKLOG_LIMIT:  # it has stopped reading; it may connect again
            self._drop(client)
            return
        wanted = select.EPOLLIN | (select.EPOLLOUT if client.outbox else 0)
        if wanted != client.wanted:
            client.wanted = wanted
            self._loop.watch(fd, lambda events: self._ready(client, events), wanted)

    def _drop(self, client: Client) -> None:
        fd = client.socket.fileno()
        if fd < 0:
            return
        self._loop.unwatch(fd)
        self._clients.pop(fd, None)
        client.socket.close()
        self._consider_leaving()

    def _consider_leaving(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not self._clients:
            self._idle = self._loop.later(IDLE, self._leave)

    def _leave(self) -> None:
        self._tender.save()
        if self._tender.busy():
            self._consider_leaving()
        else:
            self._loop.stop()


def _cgroups(home: str) -> Cgroups | None:
    if os.geteuid() != 0:
        return None
    try:
        return Cgroups(group_name(home))
    except (OSError, RuntimeError) as error:
        say(f"no control groups: {error}")
        return None


def _listen(home: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = os.path.join(home, SOCKET)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    old = os.umask(0o177)
    # A socket's address holds 107 bytes; a deep home does not fit, its descriptor does.
    directory = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{SOCKET}")
    finally:
        os.umask(old)
        os.close(directory)
    listener.listen(64)
    listener.setblocking(False)
    return listener


def _detach() -> None:
    """Become a process of its own: no terminal, no parent to wait for."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")


def _become_reaper() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _take_over_output(home: str) -> None:
    """Tell the starter that all is well, then write to the log from here on."""
    try:
        os.write(1, b"ready\n")
    except BrokenPipeError:  # the starter was killed; whoever comes next finds us
        pass
    log = os.open(
        os.path.join(home, LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _heed_signals() -> None:
    """What those who started this ignore, jobs would ignore too. Python's own two stay: what it
    starts gets them back."""
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def main(home: str) -> None:
    """Run the keeper of the agent whose directory is `home`. Its standard output is a pipe on
    which `ready` says that the socket answers."""
    _heed_signals()
    _detach()
    pid_file = os.open(os.path.join(home, PID), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    signal.alarm(10)  # one that is just leaving holds the lock for a moment, no longer
    fcntl.flock(pid_file, fcntl.LOCK_EX)
    signal.alarm(0)
    _become_reaper()
    loop = Loop()
    listener = _listen(home)
    keeper = Keeper(loop, listener, home)
    try:
        os.ftruncate(pid_file, 0)
        os.pwrite(pid_file, f"{os.getpid()}\n".encode(), 0)
    except OSError:  # the disk is full: the lock counts, the number is for people
        pass
    _take_over_output(home)
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    loop.run()
    try:
        os.unlink(os.path.join(home, SOCKET))
    except OSError:
        pass
    keeper.close()
