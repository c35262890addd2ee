"""The agent's end of the keeper's socket."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
from msgspec import Struct

from moorage.agent import keeper
from moorage.errors import Unavailable

Cause = Literal["stopped", "aborted", "timeout", "out-of-memory", "lost", "rebooted", "unstarted"]

START_PATIENCE = 15.0
"""Seconds for a new keeper to say that it is ready: an interpreter's start on a busy machine."""
_TOO_NEW = (
    "the keeper was started by a newer moorage that this one cannot talk to (jobs it runs: "
    "{jobs}); install the newer version again, or wait until they have ended"
)
_LINE_LIMIT = 64 * 1024 * 1024
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from moorage.agent.keeper import main; main(sys.argv[2])"
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
    """Operations in order (see `sandbox.py`); None: no mount namespace."""
    cgroup: dict[str, float | None] | None = None
    """Limits `memory`, `cpus`, `pids`; None: no cgroup."""
    max_duration: float | None = None
    grace: float | None = None
    """Seconds from SIGTERM to SIGKILL after max_duration; None: no SIGKILL."""


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


class SpawnError(Exception):
    """The keeper could not start it; one line. `step`: mount, cgroup, cwd, output or exec."""

    def __init__(self, message: str, step: str) -> None:
        super().__init__(message)
        self.step = step


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
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._protocol = keeper.PROTOCOL

    async def connect(self) -> None:
        """Connect, starting the keeper when none answers. One of another version is kept as long
        as it has jobs. Unavailable: it does not start, or is too new to be understood."""
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
        streams = await self._open()
        if streams is None:
            return False
        reader, self._writer = streams
        reading = asyncio.create_task(self._read(reader))
        try:
            answer = await self._ask("list")
        except Unavailable:
            await reading
            return False
        self._reading = reading
        self._protocol = answer.get("protocol", 1)
        if answer.get("oldest", 1) > keeper.PROTOCOL:
            await self.close()
            raise Unavailable(_TOO_NEW.format(jobs=len(answer["running"])))
        return True

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        directory = os.open(self._home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # The short way round the 107 bytes that a socket's address may have.
            path = f"/proc/self/fd/{directory}/keeper.sock"
            return await asyncio.open_unix_connection(path, limit=_LINE_LIMIT)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        finally:
            os.close(directory)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                self._receive(msgspec.json.decode(line, type=dict[str, Any]))
        greeted = self._reading is not None
        self._fail_all()
        if greeted and self._on_lost is not None:
            self._on_lost()

    def _receive(self, message: dict[str, Any]) -> None:
        if message.get("event") == "exit":
            self._on_exit(message["key"], msgspec.convert(message["record"], ExitRecord))
            return
        waiting = self._waiting.pop(message["id"], None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    def _fail_all(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the keeper went away"))

    async def _ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        if self._writer is None:
            raise Unavailable("not connected to the keeper")
        number = next(self._numbers)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        request = {"id": number, "op": operation, **fields}
        self._writer.write(msgspec.json.encode(request) + b"\n")
        return await future

    async def spawn(self, request: SpawnRequest) -> int:
        """The pid; the same pid for a key that was spawned before. SpawnError."""
        answer = await self._ask("spawn", **msgspec.structs.asdict(request))
        if "error" in answer:
            raise SpawnError(answer["error"], answer["step"])
        return cast(int, answer["pid"])

    async def stop(self, key: str, grace: float | None, cause: Cause = "stopped") -> bool:
        """SIGTERM to the whole job now, SIGKILL after `grace` seconds (0: at once; None: never).
        False when it is not running (any more)."""
        answer = await self._ask("stop", key=key, grace=grace, cause=cause)
        return bool(answer.get("ok"))

    async def running(self) -> dict[str, int]:
        """Pids of what runs, by key; 0 while it is being started."""
        answer = await self._ask("list")
        return {job["key"]: job["pid"] for job in answer["running"]}

    async def ended(self) -> dict[str, ExitRecord]:
        """What ended and was not forgotten, as far as this keeper knows."""
        answer = await self._ask("list")
        return {job["key"]: msgspec.convert(job["record"], ExitRecord) for job in answer["ended"]}

    async def bury(self, key: str, directory: Path) -> None:
        """Kill whatever a keeper that died left of an attempt, and write an exit record of cause
        `lost`; returns when nothing of it is left. For attempts that have a `spawned.json`, no
        `exit.json`, and are not in `running()`. SpawnError when this keeper runs it."""
        answer = await self._ask("bury", key=key, directory=str(directory))
        if "error" in answer:
            raise SpawnError(answer["error"], answer["step"])

    async def forget(self, key: str) -> None:
        """Drop the keeper's memory of an ended key."""
        await self._ask("forget", key=key)

    async def dismiss(self) -> bool:
        """End the keeper, unless something runs; whether it has ended. `on_lost` is not called."""
        if not (await self._ask("exit")).get("ok"):
            return False
        reading, self._reading = self._reading, None
        if reading is not None:
            await reading
        return True

    async def close(self) -> None:
        """Disconnect; the keeper and its processes stay. `on_lost` is not called."""
        reading, writer, self._reading = self._reading, self._writer, None
        if reading is not None:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
        self._fail_all()
        if writer is not None:
            with suppress(OSError):
                await writer.wait_closed()


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
        return msgspec.json.decode((directory / "exit.json").read_bytes(), type=ExitRecord)
    return None
