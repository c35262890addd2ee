"""A scripted server, and real agents, keepers and processes that talk to it."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from moorage import protocol
from moorage.agent.keeping import Keeper
from moorage.protocol.agent import (
    Ack,
    Beat,
    Beaten,
    Dropped,
    Forget,
    Held,
    Hello,
    Launch,
    LogData,
    ProbeResult,
    ReadLog,
    Report,
    Start,
    ToAgent,
    Welcome,
    decode_to_server,
    encode,
)
from moorage.protocol.health import Health
from moorage.specs.stores.record import Access

STORES = "/v1/node/stores/"
TOKEN = "node-token-for-tests"
PATIENCE = 60.0


def launch(*commands: str, job: int = 1, **more: Any) -> Launch:
    fields: dict[str, Any] = {"attempt": 1, "index": 0, "stop_duration": 5.0, **more}
    return Launch(
        run=1, run_name="quick-otter-1", user="ada", job=job, commands=list(commands), **fields
    )


class Desk:
    """The server's side: greets, acknowledges, remembers what it was told."""

    def __init__(self) -> None:
        self.port = 0
        self.patience = PATIENCE
        self.hellos: list[Hello] = []
        self.held: dict[str, Held] = {}
        self.history: list[tuple[str, str]] = []
        self.reports: list[Report] = []
        self.healths: list[Health] = []
        self.answers: dict[int, LogData | ProbeResult] = {}
        self.welcome = Welcome(protocol.VERSION, "0.1.0", 1, 1)
        self.acking = True
        self.tokens: list[str] = []
        self.stores: dict[str, Access] = {}
        self.asked: list[str] = []
        """Paths of requests for the access to a store."""
        self._numbers = itertools.count(1000)
        self._news = asyncio.Condition()
        self._socket: ServerConnection | None = None
        self._server: Any = None

    async def open(self) -> None:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self.port,
            compression=None,
            process_request=self._tell_access,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _tell_access(self, connection: ServerConnection, request: Request) -> Response | None:
        if not request.path.startswith(STORES):
            return None
        self.asked.append(request.path)
        access = self.stores.get(request.path.removeprefix(STORES).partition("?")[0])
        if access is None:
            return connection.respond(404, '{"code": "not-found", "message": "no such store"}')
        response = connection.respond(200, "")
        response.body = msgspec.json.encode(access)
        del response.headers["Content-Length"]
        response.headers["Content-Length"] = str(len(response.body))
        return response

    async def _serve(self, socket: ServerConnection) -> None:
        self.tokens.append(socket.request.headers["Authorization"])
        with suppress(ConnectionClosed):
            hello = decode_to_server(await socket.recv())
            assert isinstance(hello, Hello)
            await socket.send(encode(self.welcome))
            self._socket = socket
            async with self._news:
                self.hellos.append(hello)
                self.held.update({held.key: held for held in hello.held})
                self._news.notify_all()
            async for raw in socket:
                await self._take(socket, decode_to_server(raw))

    async def _take(self, socket: ServerConnection, message: Any) -> None:
        async with self._news:
            if isinstance(message, Report):
                self.reports.append(message)
                for held in message.held:
                    self.held[held.key] = held
                    self.history.append((held.key, held.state))
                if self.acking:
                    await socket.send(encode(Ack(message.seq)))
            elif isinstance(message, Health):
                self.healths.append(message)
            elif isinstance(message, Beat):
                await socket.send(encode(Beaten(message.number)))
            elif not isinstance(message, Dropped):
                self.answers[message.request] = message
            self._news.notify_all()

    async def send(self, message: ToAgent) -> None:
        assert self._socket is not None
        await self._socket.send(encode(message))

    async def until(self, true: Callable[[], Any]) -> Any:
        async with asyncio.timeout(self.patience), self._news:
            while not (found := true()):
                await self._news.wait()
            return found

    async def connected(self, times: int = 1) -> Hello:
        await self.until(lambda: len(self.hellos) >= times)
        return self.hellos[-1]

    async def start(self, launch: Launch) -> str:
        await self.send(Start(launch))
        return f"{launch.job}.{launch.attempt}.{launch.rank}"

    async def reaches(self, key: str, *states: str) -> Held:
        held = await self.until(
            lambda: self.held[key] if key in self.held and self.held[key].state in states else None
        )
        assert isinstance(held, Held)
        return held

    async def done(self, key: str) -> Held:
        return await self.reaches(key, "done")

    async def ask(self, message: Any) -> Any:
        self.answers.pop(message.request, None)
        await self.send(message)
        return await self.until(lambda: self.answers.pop(message.request, None))

    async def log(self, key: str) -> str:
        """All output until its end."""
        data, offset = b"", 0
        while True:
            page = await self.ask(ReadLog(7, key, offset, wait=True))
            assert not page.missing
            data += page.data
            offset = page.offset + len(page.data)
            if page.ended:
                return data.decode()

    async def run(self, launch: Launch) -> Held:
        """Start, wait for the end, forget."""
        key = await self.start(launch)
        held = await self.done(key)
        await self.forget(key)
        return held

    async def forget(self, key: str) -> None:
        """Returns when the agent has done it: messages are handled in order."""
        await self.send(Forget([key]))
        await self.ask(ReadLog(next(self._numbers), key))


class World:
    """A home with agents in it, one after the other."""

    def __init__(self, home: Path, desk: Desk) -> None:
        self.home = home
        self.desk = desk
        self.agent: asyncio.subprocess.Process | None = None
        self.directory = home / "agent"
        self.directory.mkdir(mode=0o700)
        (self.directory / "token").write_text(TOKEN + "\n")

    def attempt(self, key: str) -> Path:
        return self.directory / "attempts" / key

    async def start_agent(self, *options: str, wait: bool = True) -> asyncio.subprocess.Process:
        times = len(self.desk.hellos)
        arguments = ["--server", f"http://127.0.0.1:{self.desk.port}", "--home", str(self.home)]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        log = os.open(self.home / "agent.log", flags, 0o600)
        try:
            self.agent = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "moorage.agent.main",
                *arguments,
                *options,
                stderr=log,
                cwd="/",
            )
        finally:
            os.close(log)
        if wait:
            await self.desk.connected(times + 1)
        return self.agent

    async def end_agent(self, number: int = signal.SIGTERM) -> int:
        agent, self.agent = self.agent, None
        if agent is None:
            return 0
        if agent.returncode is None:
            agent.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            return await agent.wait()

    def words(self) -> str:
        return (self.home / "agent.log").read_text()

    async def end_keeper(self) -> None:
        if not (self.directory / "keeper.sock").exists():
            return
        ended = asyncio.Event()
        keeper = Keeper(self.directory, lambda key, record: ended.set())
        await keeper.connect()
        async with asyncio.timeout(PATIENCE):
            while running := await keeper.running():
                for key in running:
                    await keeper.stop(key, 0, "aborted")
                await ended.wait()
                ended.clear()  # before the next look: what ends after that is heard of
            await keeper.dismiss()
        await keeper.close()

    def kill_keeper(self) -> None:
        os.kill(int((self.directory / "keeper.pid").read_text()), signal.SIGKILL)


@asynccontextmanager
async def agent_world(home: Path, *options: str) -> AsyncIterator[World]:
    desk = Desk()
    await desk.open()
    world = World(home, desk)
    try:
        await world.start_agent(*options)
        yield world
    finally:
        await world.end_agent()
        await world.end_keeper()
        await desk.close()
