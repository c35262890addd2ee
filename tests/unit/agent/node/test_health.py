from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from moorage.agent.node.health import Caretaker, Finding, Program, combine, judge
from moorage.protocol.health import CheckHealth, GpuHealth, Health


def once(command: str, timeout: float = 20.0) -> Finding:
    return asyncio.run(Program(CheckHealth(command, 60.0, timeout)).run())


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("echo fine", Finding("healthy")),
        ("echo a; echo 'disk  full' >&2; exit 1", Finding("failure", "disk full")),
        ("echo hot; exit 75", Finding("warning", "hot")),
        ("exit 3", Finding("failure", "the health check ended with exit code 3")),
        ("kill -9 $$", Finding("failure", "the health check ended with signal 9")),
    ],
)
def test_its_exit_code_is_the_state_and_its_last_line_the_reason(
    command: str, found: Finding
) -> None:
    assert once(command) == found


def test_the_deadline_ends_it_and_what_it_started(tmp_path: Path) -> None:
    found = once(f"sleep 1000 & echo $! > {tmp_path}/pid; sleep 1000", 2.0)
    assert found == Finding("failure", "no answer within 2 s")
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(int((tmp_path / "pid").read_text()))
        assert select.select([descriptor], [], [], 60)[0]
        os.close(descriptor)


def test_the_worst_decides() -> None:
    warm, broken = GpuHealth(0, "warning", "hot"), GpuHealth(1, "failure", "gone")
    well, full = Finding("healthy"), Finding("failure", "full")
    assert combine([well], []) == Health()
    assert combine([well], [warm]) == Health("warning", "GPU 0: hot", [warm])
    assert combine([full], [warm, broken]).reason == "full"
    assert combine([full, Finding("failure", "no driver")], []).reason == "full; no driver"


def test_a_gpu_that_failed_leaves_its_node_to_the_others() -> None:
    broken = GpuHealth(1, "failure", "gone")
    assert combine([Finding("healthy")], [broken]) == Health("warning", "GPU 1: gone", [broken])
    assert judge(0, "anything") == Finding("healthy")


def care(scenario: Callable[[Caretaker, asyncio.Queue[Health]], Awaitable[None]]) -> None:
    async def play() -> None:
        said: asyncio.Queue[Health] = asyncio.Queue()
        caretaker = Caretaker(said.put_nowait)
        async with asyncio.timeout(30):
            await scenario(caretaker, said)
        await caretaker.leave()

    asyncio.run(play())


def test_changes_are_told_once_and_a_new_check_replaces_the_old(tmp_path: Path) -> None:
    async def scenario(caretaker: Caretaker, said: asyncio.Queue[Health]) -> None:
        flag = tmp_path / "broken"
        check = CheckHealth(f"test ! -e {flag} || {{ echo broken; exit 1; }}", 0.05)
        caretaker.check(check)
        assert await said.get() == Health()
        flag.touch()
        assert await said.get() == Health("failure", "broken")
        caretaker.check(check)  # after a new connection: said again, and it goes on
        assert await said.get() == Health("failure", "broken")
        flag.unlink()
        assert await said.get() == Health()
        caretaker.check(CheckHealth("exit 1", 60))
        assert (await said.get()).reason.endswith("exit code 1")
        caretaker.check(CheckHealth())
        assert await said.get() == Health()
        assert said.empty()

    care(scenario)
