from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from moorage.backends.local import LocalBackend, _Process

AGENT = """
import fcntl, os, signal, sys
home = sys.argv[sys.argv.index("--home") + 1]
lock = os.open(home + "/agent/lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
os.pwrite(lock, b"%d\\n" % os.getpid(), 0)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
with open(home + "/born", "w") as born:
    born.write("%d\\n" % os.getpid())
signal.sigwait({signal.SIGTERM})
"""
COMMAND = (sys.executable, "-c", AGENT)


class Watched(LocalBackend):
    """Tells when it has an agent, and when it begins to look for one again."""

    def __init__(self, home: Path, command: Sequence[str]) -> None:
        super().__init__(home, command)
        self.watching = asyncio.Event()
        self.again = asyncio.Event()
        self.looks = 0

    async def _obtain(self, url: str) -> _Process:
        self.looks += 1
        if self.looks > 1:
            self.again.set()
        return await super()._obtain(url)

    async def _watch(self, process: _Process) -> None:
        watching = asyncio.ensure_future(super()._watch(process))
        await asyncio.sleep(0)
        self.watching.set()
        try:
            await watching
        finally:
            watching.cancel()


class Births:
    """Tells the pid of each agent that began, through a named pipe."""

    def __init__(self, home: Path) -> None:
        os.mkfifo(home / "born")
        self.descriptor = os.open(home / "born", os.O_RDWR | os.O_NONBLOCK)
        self.news = asyncio.Event()

    async def next(self) -> int:
        loop = asyncio.get_running_loop()
        self.news.clear()
        loop.add_reader(self.descriptor, self.news.set)
        try:
            async with asyncio.timeout(30):
                await self.news.wait()
        finally:
            loop.remove_reader(self.descriptor)
        return int(os.read(self.descriptor, 32))

    def close(self) -> None:
        os.close(self.descriptor)


async def ended(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(descriptor, gone.set)
    try:
        async with asyncio.timeout(30):
            await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def run(home: Path, scenario: Callable[[Births], Awaitable[None]]) -> None:
    async def life() -> None:
        births = Births(home)
        try:
            await scenario(births)
        finally:
            births.close()

    asyncio.run(life())


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_agent_is_started_replaced_and_stopped(tmp_path: Path) -> None:
    async def scenario(births: Births) -> None:
        backend = LocalBackend(tmp_path, COMMAND)
        task = asyncio.create_task(backend.run("http://127.0.0.1:1"))
        first = await births.next()
        assert os.getsid(first) == first, "in a session of its own"
        os.kill(first, signal.SIGKILL)
        second = await births.next()
        assert second != first
        await cancelled(task)
        await backend.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(second, 0)

    run(tmp_path, scenario)


def test_a_running_agent_is_adopted_and_another_address_replaces_it(tmp_path: Path) -> None:
    async def scenario(births: Births) -> None:
        killed = LocalBackend(tmp_path, COMMAND)
        task = asyncio.create_task(killed.run("http://127.0.0.1:1"))
        first = await births.next()
        await cancelled(task)

        same = Watched(tmp_path, COMMAND)
        task = asyncio.create_task(same.run("http://127.0.0.1:1"))
        async with asyncio.timeout(30):
            await same.watching.wait()
        assert same._process is not None
        assert same._process.pid == first
        await cancelled(task)
        same._process.forget()

        moved = LocalBackend(tmp_path, COMMAND)
        task = asyncio.create_task(moved.run("http://127.0.0.1:2"))
        second = await births.next()
        assert second != first
        assert killed._process is not None
        await killed.stop()
        await cancelled(task)
        await moved.stop()
        await ended(second)

    run(tmp_path, scenario)


def test_an_agent_that_cannot_start_is_no_exception(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(_: Births) -> None:
        backend = Watched(tmp_path, ["/nonexistent/agent"])
        task = asyncio.create_task(backend.run("http://127.0.0.1:1"))
        async with asyncio.timeout(30):
            await backend.again.wait()
        assert "cannot be started" in caplog.text
        await cancelled(task)
        await backend.stop()

    run(tmp_path, scenario)
