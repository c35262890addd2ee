"""What becomes of a mount whose rclone dies or hangs while a job uses it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from moorage.protocol.agent import Stop
from moorage.specs.mounts import CacheOptions

pytestmark = pytest.mark.root

LIST = (
    "ls /data; echo first; mkfifo gate; read x < gate; "
    "until ls /data/f1 2>&1; do :; done; cat /data/f1; echo more > /data/f2; echo second"
)


def run(main: Callable[[Any], Any], buckets: Any) -> None:
    async def body() -> None:
        async with buckets() as b:
            await main(b)
            assert b.leftovers() == []

    asyncio.run(body())


async def go(b: Any, key: str) -> None:
    gate = b.world.attempt(key) / "work" / "gate"
    await asyncio.to_thread(gate.write_text, "go\n")


def run_detail(b: Any, key: str) -> str:
    held = b.desk.held.get(key)
    return next((phase.detail for phase in held.phases if phase.name == "run"), "")


@pytest.mark.parametrize("mode", ["mount", "cached"])
def test_a_dead_rclone_is_replaced_where_the_job_sees_it(buckets: Any, mode: str) -> None:
    async def main(b: Any) -> None:
        b.store.write(b.bucket, "f1", b"one\n")
        key = await b.desk.start(b.launch(LIST, mode=mode))
        await b.said(key, "first")
        for times in ("once", "2 times", "3 times"):
            b.kill_rclone(key)
            await b.desk.until(lambda t=times: f"restarted {t}" in run_detail(b, key))
        await go(b, key)
        held = await b.desk.done(key)
        assert held.outcome.exit_code == 0, await b.desk.log(key)
        assert "/data restarted 3 times: its process ended" in run_detail(b, key)
        assert (await b.desk.log(key)).endswith("/data/f1\none\nsecond\n")
        assert b.store.listing(b.bucket) == {"f1": 4, "f2": 5}
        await b.desk.forget(key)

    run(main, buckets)


def test_one_that_hangs_is_told_ended_and_replaced(buckets: Any) -> None:
    async def main(b: Any) -> None:
        b.store.write(b.bucket, "f1", b"one\n")
        key = await b.desk.start(b.launch(LIST))
        await b.said(key, "first")
        b.kill_rclone(key, signal.SIGSTOP)
        await go(b, key)
        await b.desk.until(lambda: "/data does not answer" in run_detail(b, key))
        await b.desk.until(lambda: "restarted once: it hung" in run_detail(b, key))
        held = await b.desk.done(key)
        assert held.outcome.exit_code == 0
        assert b.store.listing(b.bucket) == {"f1": 4, "f2": 5}
        await b.desk.forget(key)

    run(main, buckets)


def test_one_that_answers_again_is_left_alone(buckets: Any) -> None:
    async def main(b: Any) -> None:
        b.store.write(b.bucket, "f1", b"one\n")
        key = await b.desk.start(b.launch(LIST))
        await b.said(key, "first")
        b.kill_rclone(key, signal.SIGSTOP)
        await go(b, key)
        await b.desk.until(lambda: "/data does not answer" in run_detail(b, key))
        b.kill_rclone(key, signal.SIGCONT)
        held = await b.desk.done(key)
        assert held.outcome.exit_code == 0
        assert b.store.listing(b.bucket) == {"f1": 4, "f2": 5}
        assert "restarted" not in run_detail(b, key)
        await b.desk.forget(key)

    run(main, buckets)


def test_leftovers_of_attempts_that_nobody_knows_are_ended(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch("echo up; exec tail -f /dev/null"))
        await b.said(key, "up")
        await b.world.end_agent(signal.SIGKILL)
        await b.world.end_keeper()
        directory = b.world.attempt(key)
        directory.rename(directory.with_name("not-an-attempt"))
        await b.world.start_agent()

    run(main, buckets)


def test_one_that_hangs_when_nobody_uses_it_any_more_is_replaced_too(buckets: Any) -> None:
    async def main(b: Any) -> None:
        cache = CacheOptions(write_back=600.0)
        key = await b.desk.start(
            b.launch("echo x > /data/f; echo up; exec tail -f /dev/null", b_cache=cache)
        )
        await b.said(key, "up")
        b.kill_rclone(key, signal.SIGSTOP)
        await b.desk.send(Stop(key, 0.0))
        b.desk.patience = 60.0
        await b.desk.done(key)
        assert b.store.listing(b.bucket) == {"f": 2}
        await b.desk.forget(key)

    run(main, buckets)
