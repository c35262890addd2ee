"""The agent's side of the socket, beside keepers of other versions."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from moorage.agent import keeping
from moorage.agent.keeper.main import PROTOCOL
from moorage.agent.keeping import Keeper
from moorage.agent.upkeep import Processes
from moorage.errors import Unavailable


class Other:
    """A keeper of another version: answers `list` with what it is told, and notes all requests."""

    def __init__(self, **answer: Any) -> None:
        self.answer = {"running": [], "ended": [], **answer}
        self.asked: list[str] = []
        self.forgotten: list[Any] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            request = json.loads(line)
            self.asked.append(request["op"])
            answer: dict[str, Any] = {"ok": not self.answer["running"]}
            if request["op"] == "list":
                answer = self.answer
            self.forgotten.append(request.get("keys") or request.get("key"))
            if "id" in request:
                writer.write(json.dumps({"id": request["id"], **answer}).encode() + b"\n")
            if request["op"] == "exit" and answer["ok"]:
                break
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def beside(other: Other, home: Path) -> AsyncIterator[Keeper]:
    os.chdir(home)  # a socket's path must be short
    server = await asyncio.start_unix_server(other.serve, "keeper.sock")
    keeper = Keeper(home, lambda key, record: None)
    try:
        yield keeper
    finally:
        await keeper.close()
        server.close()
        await server.wait_closed()


RUNNING = [{"key": "1.1.0", "pid": 7}]


@pytest.mark.parametrize("answer", [{}, {"protocol": PROTOCOL + 1, "oldest": PROTOCOL}])
def test_a_keeper_of_another_version_keeps_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    async def scenario() -> None:
        async with beside(Other(running=RUNNING, **answer), tmp_path) as keeper:
            await keeper.connect()
            assert await keeper.running() == {"1.1.0": 7}

    monkeypatch.chdir(tmp_path)
    asyncio.run(scenario())


def test_an_older_keeper_without_jobs_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Other()
    started = []

    def start(home: Path) -> None:
        started.append(home)
        other.answer["protocol"] = PROTOCOL

    async def scenario() -> None:
        async with beside(other, tmp_path) as keeper:
            await keeper.connect()
            assert await keeper.running() == {}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keeping, "start_keeper", start)
    asyncio.run(scenario())
    assert started == [tmp_path]
    assert other.asked[:2] == ["list", "exit"]


def test_a_keeper_that_is_too_new_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Other(running=RUNNING, protocol=PROTOCOL + 2, oldest=PROTOCOL + 1)

    async def scenario() -> None:
        async with beside(other, tmp_path) as keeper:
            with pytest.raises(Unavailable, match=r"newer moorage .*jobs it runs: 1"):
                await keeper.connect()

    monkeypatch.chdir(tmp_path)
    asyncio.run(scenario())
    assert other.asked == ["list"]


@pytest.mark.parametrize(
    ("protocol", "told"), [(PROTOCOL, [["1.1.0", "2.1.0"]]), (2, ["1.1.0", "2.1.0"])]
)
def test_forgotten_keys_travel_together_where_the_keeper_knows_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, told: list[Any]
) -> None:
    other = Other(running=RUNNING, protocol=protocol)

    async def scenario() -> None:
        async with beside(other, tmp_path) as keeper:
            await keeper.connect()
            keeper.forget("1.1.0")
            keeper.forget("2.1.0")
            await keeper.ended()

    monkeypatch.chdir(tmp_path)
    asyncio.run(scenario())
    assert [keys for keys in other.forgotten if keys] == told


def test_another_keeper_is_started_for_one_that_is_killed_while_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = (
        "import os, signal, sys\n"
        "try: os.mkdir(sys.argv[2] + '/killed')\n"
        "except FileExistsError: pass\n"
        "else: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    boot = keeping._BOOT

    async def scenario() -> None:
        processes = Processes(tmp_path)
        assert await processes.connect() == {}
        await processes.close()

    monkeypatch.setattr(keeping, "_BOOT", f"{once}{boot}")
    asyncio.run(scenario())
    assert (tmp_path / "killed").is_dir()


def test_a_keeper_that_never_starts_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_BOOT", "raise SystemExit('no')")
    with pytest.raises(Unavailable, match=r"did not start; see .*keeper\.log"):
        asyncio.run(Processes(tmp_path).connect())
    assert (tmp_path / "keeper.log").read_text().splitlines() == ["no"] * 4
