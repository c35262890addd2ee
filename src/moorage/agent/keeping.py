"""The agent's end of the keeper's socket."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from moorage.agent.keeper import main as keeper
from moorage.agent.wire import Wire, dial
from moorage.decoding import from_json, json_decoder
from moorage.errors import Unavailable

Cause = Literal[
    "stopped", "aborted", "timeout", "out-of-memory", "lost", "rebooted", "unstarted", "fenced"
]

START_PATIENCE = 15.0
"""Seconds for a new keeper to say that it is ready: an interpreter's start on a busy machine."""
_TOO_OLD = (
    "jobs of an older moorage still run here, whose keeper cannot start containers; wait until "
    "they have ended"
)
_TOO_OLD_TO_ENTER = (
    "the job was started by an older moorage, whose jobs cannot be looked into; wait until it has "
    "ended"
)
_TOO_OLD_TO_FENCE = (
    "jobs of an older moorage still run here, whose keeper cannot end jobs of a node that is "
    "cut off; wait until they have ended, or set on_node_loss: wait"
)
_TOO_OLD_TO_HOLD = "jobs of an older moorage, without durable: fsync, still run; wait for them"
_TOO_NEW = (
    "the keeper was started by a newer moorage that this one cannot talk to (jobs it runs: "
    "{jobs}); install the newer version again, or wait until they have ended"
)
_FORGET_WITHIN = 0.2  # seconds
_FORGET_AT_ONCE = 64  # keys
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from moorage.agent.keeper.main import main; main(sys.argv[2])"
)


class SpawnRequest(Struct, frozen=True, kw_only=True):
    """What the keeper needs to start one process; `env` may hold secrets."""

    key: str
    directory: str
    argv: list[str]
    direct: list[str] | None = None
    """Words that may be executed as a program in place of `argv`, where there is one."""
    env: dict[str, str]
    cwd: str
    output: str
    mounts: list[list[Any]] | None = None
    """Operations in order (see `sandbox/view.py`); None: no mount namespace."""
    container: dict[str, Any] | None = None
    """What `sandbox/rootfs.py` needs; None: a process of the node."""
    engine: dict[str, Any] | None = None
    """Set where `argv` is a container engine, which makes the container and passes signals on:
    `cwd` of the job in it."""
    cgroup: dict[str, float | None] | None = None
    """Limits `memory`, `cpus`, `pids`; None: no cgroup."""
    denied: list[str] = []
    """Devices that the kernel keeps from it, as `c 195:0`, where there is a cgroup for them."""
    max_duration: float | None = None
    grace: float | None = None
    """Seconds from SIGTERM to SIGKILL after max_duration; None: no SIGKILL."""
    gate: bool = False
    """Other ranks of the job may come in by ssh."""
    nests: bool = False
    """It makes control groups below its own, by a daemon of its own (`sandbox/dockerd.py`)."""
    fenced: bool = False
    """It is killed where the node's lease ends."""
    fsyncs: list[str] = []
    """Directories of mounts for which its `fsync` returns after the upload."""


class ExitRecord(Struct, frozen=True, omit_defaults=True):
    """`exit.json`: how a process ended. Times are Unix seconds, sizes bytes."""

    status: int | None
    """As waitpid gives it; None when the keeper that started it died."""
    exit_code: int | None
    signal: int | None
    cause: Cause | None
    began: float
    ended: float
    oom_kills: int = 0
    cpu_seconds: float = 0.0
    memory_peak: int | None = None
    """Of the whole job with a cgroup, else of its largest process."""
    command: int | None = None
    """Number of the command that ran last, from 1."""
    left: int = 0
    """Processes that outlived the main one and were killed."""


class TooNew(Unavailable):
    """The keeper is of a version that this agent cannot talk to: trying again does not help."""


class SpawnError(Exception):
    """The keeper could not start it; one line. `step`: mount, cgroup, cwd, output or
    exec; keeper where that is too old to be asked."""

    def __init__(self, message: str, step: str) -> None:
        super().__init__(message)
        self.step = step


class _Known(Struct, frozen=True):
    """A job in the answer to `list`."""

    key: str
    pid: int = 0
    record: ExitRecord | None = None


class _Message(Struct, frozen=True):
    """Whatever the keeper says."""

    id: int | None = None
    event: str = ""
    key: str = ""
    record: ExitRecord | None = None
    pid: int = 0
    ok: bool = False
    error: str | None = None
    step: str = ""
    protocol: int = 1
    oldest: int = 1
    running: list[_Known] = []
    ended: list[_Known] = []


_decode = json_decoder(_Message)
_encode = msgspec.json.Encoder().encode


class Keeper:
    """A connection to the keeper of this agent. Every method may raise Unavailable when the
    keeper goes away; `connect` again then (it starts a new one if need be)."""

    def __init__(
        self,
        home: Path,
        on_exit: Callable[[str, ExitRecord], None],
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """`home` is `$MOORAGE_HOME/agent`. `on_exit(key, record)` is called on the event loop for
        each process that ends while connected; `on_lost()` when the connection breaks."""
        self._home, self._on_exit, self._on_lost = home, on_exit, on_lost
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[_Message]] = {}
        self._forgotten: list[str] = []
        self._wire: Wire | None = None
        self._greeted = False
        self._protocol = keeper.PROTOCOL

    async def connect(self) -> None:
        """Connect, starting the keeper when none answers. One of another version is kept as long
        as it has jobs. Unavailable: it does not start; TooNew."""
        await self.close()
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        answers = await self._greet()
        if answers and self._protocol < keeper.PROTOCOL and await self.dismiss():
            answers = False
        if not answers:
            await asyncio.to_thread(start_keeper, self._home)
            if not await self._greet():
                raise Unavailable(f"the keeper does not answer; see {self._home / 'keeper.log'}")

    async def _greet(self) -> bool:
        """Connect and get one answer: the socket of a keeper that is being killed still takes
        connections for a moment."""
        self._wire = await dial(self._home, self._receive, self._lost)
        if self._wire is None:
            return False
        try:
            answer = await self._ask("list")
        except Unavailable:
            return False
        self._greeted = True
        self._protocol = answer.protocol
        if answer.oldest > keeper.PROTOCOL:
            await self.close()
            raise TooNew(_TOO_NEW.format(jobs=len(answer.running)))
        return True

    def _receive(self, line: bytes) -> None:
        message = _decode(line)
        if message.event == "exit" and message.record is not None:
            self._on_exit(message.key, message.record)
        elif message.id is not None:
            waiting = self._waiting.pop(message.id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)

    def _lost(self, wire: Wire) -> None:
        if wire is not self._wire:  # we have left it
            return
        greeted = self._greeted
        self._hang_up()
        if greeted and self._on_lost is not None:
            self._on_lost()

    def _hang_up(self) -> Wire | None:
        wire, self._wire = self._wire, None
        self._greeted = False
        self._forgotten = []
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the keeper went away"))
        return wire

    async def _ask(self, operation: str, **fields: object) -> _Message:
        return await self._answer(operation, _encode(fields))

    def _answer(self, operation: str, fields: bytes) -> asyncio.Future[_Message]:
        """`fields`: an object in JSON."""
        if self._wire is None:
            raise Unavailable("not connected to the keeper")
        number = next(self._numbers)
        future: asyncio.Future[_Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        more = b"," if fields != b"{}" else b""
        self._wire.say(b'{"id":%d,"op":"%s"%s%s' % (number, operation.encode(), more, fields[1:]))
        return future

    async def spawn(self, request: SpawnRequest) -> int:
        """The pid; the same pid for a key that was spawned before. SpawnError."""
        if request.container is not None and self._protocol < keeper.CONTAINS:
            raise SpawnError(_TOO_OLD, "keeper")
        if request.engine is not None and self._protocol < keeper.ENGINES:
            raise SpawnError(_TOO_OLD, "keeper")
        if request.fenced and self._protocol < keeper.FENCES:
            raise SpawnError(_TOO_OLD_TO_FENCE, "keeper")
        if request.fsyncs and self._protocol < keeper.HOLDS:
            raise SpawnError(_TOO_OLD_TO_HOLD, "keeper")
        answer = await self._answer("spawn", _encode(request))
        if answer.error is not None:
            raise SpawnError(answer.error, answer.step)
        return answer.pid

    def renew(self, until: float) -> None:
        """The node's lease ends then (`fence.now` seconds). Never raises."""
        if self._wire is not None and self._protocol >= keeper.FENCES:
            self._wire.say(b'{"op":"lease","until":%s}' % _encode(until))

    def unfence(self, keys: Collection[str]) -> None:
        """These live on whatever becomes of the lease. Never raises."""
        if self._wire is not None and keys and self._protocol >= keeper.FENCES:
            self._wire.say(b'{"op":"unfence","keys":%s}' % _encode(list(keys)))

    async def stop(self, key: str, grace: float | None, cause: Cause = "stopped") -> bool:
        """SIGTERM to the whole job now, SIGKILL after `grace` seconds (0: at once; None: never).
        False when it is not running (any more)."""
        return (await self._ask("stop", key=key, grace=grace, cause=cause)).ok

    async def running(self) -> dict[str, int]:
        """Pids of what runs, by key; 0 while it is being started."""
        return {job.key: job.pid for job in (await self._ask("list")).running}

    async def ended(self) -> dict[str, ExitRecord]:
        """What ended and was not forgotten, as far as this keeper knows."""
        self._tell_forgotten()
        known = (await self._ask("list")).ended
        return {job.key: job.record for job in known if job.record is not None}

    async def bury(self, key: str, directory: Path) -> None:
        """Kill whatever a keeper that died left of an attempt, and write an exit record of cause
        `lost`; returns when nothing of it is left. For attempts that have a `spawned.json`, no
        `exit.json`, and are not in `running()`. SpawnError when this keeper runs it."""
        answer = await self._ask("bury", key=key, directory=str(directory))
        if answer.error is not None:
            raise SpawnError(answer.error, answer.step)

    async def enter(self, key: str, directory: Path, name: str) -> None:
        """Start what lets somebody look into a job; it will connect to the socket `name` in
        `directory`. SpawnError where the job does not run."""
        if self._protocol < keeper.ENTERS:
            raise SpawnError(_TOO_OLD_TO_ENTER, "enter")
        answer = await self._ask("enter", key=key, directory=str(directory), name=name)
        if answer.error is not None:
            raise SpawnError(answer.error, answer.step)

    def forget(self, key: str) -> None:
        """Let the keeper drop its memory of an ended key, soon and together with others; one that
        goes away has none. Never raises."""
        if self._wire is None:
            return
        self._forgotten.append(key)
        if len(self._forgotten) == 1:
            asyncio.get_running_loop().call_later(_FORGET_WITHIN, self._tell_forgotten)
        elif len(self._forgotten) >= _FORGET_AT_ONCE:
            self._tell_forgotten()

    def _tell_forgotten(self) -> None:
        keys, self._forgotten = self._forgotten, []
        if not keys or self._wire is None:
            return
        if self._protocol >= keeper.FORGETS_SEVERAL:
            self._wire.say(b'{"op":"forget","keys":%s}' % _encode(keys))
            return
        for key in keys:
            self._answer("forget", _encode({"key": key})).add_done_callback(_overlook)

    async def dismiss(self) -> bool:
        """End the keeper, unless something runs; whether it has ended. `on_lost` is not called."""
        wire = self._wire
        if not (await self._ask("exit")).ok:
            return False
        self._greeted = False
        if wire is not None:
            await wire.ended()
        return True

    async def close(self) -> None:
        """Disconnect; the keeper and its processes stay. `on_lost` is not called."""
        self._tell_forgotten()
        wire = self._hang_up()
        if wire is not None:
            await wire.close()


def _overlook(answer: asyncio.Future[_Message]) -> None:
    """An answer that nobody needs."""
    if not answer.cancelled():
        answer.exception()


def start_keeper(home: Path) -> None:
    """Start the keeper of the agent in `home`, unless another starter was faster. Blocks until
    it is ready. Unavailable."""
    lock = os.open(home / "keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _answers(home):
            _launch(home)
    finally:
        os.close(lock)


def _answers(home: Path) -> bool:
    directory = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(START_PATIENCE)
            probe.connect(f"/proc/self/fd/{directory}/keeper.sock")
            probe.sendall(b'{"id": 0, "op": "list"}\n')
            return bool(probe.recv(1))
    except OSError:
        return False
    finally:
        os.close(directory)


def _launch(home: Path) -> None:
    source = Path(__file__).parents[2]
    log = os.open(
        home / "keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    try:
        starter = subprocess.run(
            # No site-packages: it would double the keeper's memory for nothing. UTF-8, whatever
            # the locale: variables of jobs are text.
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, str(source), str(home)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            timeout=START_PATIENCE,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"cannot start the keeper: {error}") from error
    finally:
        os.close(log)
    if starter.stdout != b"ready\n":
        raise Unavailable(f"the keeper did not start; see {home / 'keeper.log'}")


def read_exit(directory: Path) -> ExitRecord | None:
    """The exit record in an attempt's directory; None while there is none."""
    with suppress(OSError, msgspec.MsgspecError):
        return from_json((directory / "exit.json").read_bytes(), ExitRecord)
    return None
