"""Jobs and their ends while a store hangs: it accepts connections and answers nothing. Those that
say the same of other modes and ends run with `MOORAGE_TEST_ROUNDS`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from moorage.data.rclone import fuse
from moorage.protocol.agent import Held, Limits, Stop
from moorage.protocol.flush import Flush
from moorage.protocol.mounts import MountHealth
from moorage.specs.mounts import CacheOptions
from system.agent_harness import PATIENCE

pytestmark = pytest.mark.root

long = pytest.mark.skipif(
    not os.environ.get("MOORAGE_TEST_ROUNDS"), reason="set MOORAGE_TEST_ROUNDS"
)
SOON = 25.0
"""Seconds that the end of a job may take on a busy machine; it takes two or three, and the
keeper waits 30 for what hangs."""
READ = "cat /data/f1 > /dev/null; exec tail -f /dev/null"
WRITE = "head -c 300000 /dev/zero > /data/new; echo wrote"
EAT = """
import threading
threading.Thread(target=lambda: open("/data/f1").read()).start()
import os
while not os.path.exists("eat"):
    os.stat(".")
"x" * (1 << 30)
"""


def run(main: Callable[[Any], Any], buckets: Any) -> None:
    async def body() -> None:
        async with buckets() as b:
            b.store.write(b.bucket, "f1", b"x" * 1_000_000)
            try:
                await main(b)
            finally:
                b.store.thaw()
            assert b.leftovers() == []

    asyncio.run(body())


async def begin(b: Any, command: str, **more: Any) -> str:
    """The key of a job that meets a store which hangs."""
    key = await b.desk.start(
        b.launch(f"ls /data; mkfifo gate; echo up; read x < gate; {command}", **more)
    )
    await b.said(key, "up")
    b.store.freeze()
    gate = b.world.attempt(key) / "work" / "gate"
    await asyncio.to_thread(gate.write_text, "go\n")
    return str(key)


async def waits(b: Any, key: str) -> None:
    """Until somebody waits for the mount."""
    device = b.mount(key).device()
    deadline = time.monotonic() + PATIENCE
    while not fuse.waiting(device):  # the kernel tells nobody
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def ended(b: Any, key: str) -> Held:
    began = time.monotonic()
    held = await b.desk.done(key)
    took = time.monotonic() - began
    print(f"ended after {took:.1f} s: {held.outcome}")
    assert took < SOON
    await b.desk.forget(key)
    assert isinstance(held, Held)
    return held


def health(b: Any, key: str) -> MountHealth:
    held = b.desk.held.get(key)
    found = [one for phase in held.phases for one in phase.mounts] if held else []
    return found[-1] if found else MountHealth("")


@pytest.mark.parametrize("mode", ["mount", pytest.param("cached", marks=long)])
def test_a_reader_is_stopped_at_once(buckets: Any, mode: str) -> None:
    async def main(b: Any) -> None:
        key = await begin(b, READ, mode=mode)
        await waits(b, key)
        await b.desk.send(Stop(key, 0.0))
        held = await ended(b, key)
        assert held.outcome is not None
        assert held.outcome.kind == "stopped"

    run(main, buckets)


@long
def test_one_that_obeys_nothing_is_ended_by_its_time(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await begin(b, "exec cat /data/f1", max_duration=10.0, stop_duration=0.0)
        await waits(b, key)
        held = await ended(b, key)
        assert held.outcome is not None
        assert held.outcome.kind == "timeout"

    run(main, buckets)


@long
def test_one_that_the_kernel_kills(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await begin(b, f"exec {sys.executable} -c '{EAT}'", limits=Limits(memory=128 << 20))
        await waits(b, key)
        (b.world.attempt(key) / "work" / "eat").touch()
        held = await ended(b, key)
        assert held.outcome is not None
        assert held.outcome.kind == "out-of-memory"

    run(main, buckets)


@long
def test_one_whose_keeper_is_lost(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await begin(b, READ)
        await waits(b, key)
        b.world.kill_keeper()
        held = await ended(b, key)
        assert held.outcome is not None
        assert held.outcome.kind == "lost"

    run(main, buckets)


@long
def test_one_that_was_killed_while_its_agent_was_away(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await begin(b, READ, max_duration=10.0, stop_duration=0.0)
        await waits(b, key)
        await b.world.end_agent(signal.SIGKILL)
        await asyncio.sleep(10)
        await b.world.start_agent()
        held = await ended(b, key)
        assert held.outcome is not None
        assert held.outcome.kind == "timeout"

    run(main, buckets)


@long
@pytest.mark.parametrize("mode", ["mount", "cached", "copy"])
def test_where_nobody_waits_nothing_does(buckets: Any, mode: str) -> None:
    async def main(b: Any) -> None:
        key = await begin(b, "exec tail -f /dev/null", mode=mode, b_sync_back=mode == "copy")
        await b.desk.send(Stop(key, 0.0))
        await ended(b, key)

    run(main, buckets)


@pytest.mark.parametrize("mode", ["copy", pytest.param("cached", marks=long)])
def test_what_is_being_fetched_is_not_waited_for(buckets: Any, mode: str) -> None:
    async def main(b: Any) -> None:
        b.store.freeze()
        key = await b.desk.start(b.launch("true", mode=mode))
        await b.desk.reaches(key, "staging")
        await b.desk.send(Stop(key, 0.0))
        await ended(b, key)

    run(main, buckets)


@long
def test_what_is_in_the_cache_is_kept_and_uploaded_later(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await begin(
            b, f"{WRITE}; {READ}",
            b_flush_timeout=0.5, b_cache=CacheOptions(write_back=600.0),
        )  # fmt: skip
        await b.said(key, "wrote")
        await waits(b, key)
        await b.desk.send(Stop(key, 0.0))
        held = await ended(b, key)
        assert held.outcome is not None
        assert held.outcome.kind == "not-flushed"
        assert "missing: /data/new; kept" in held.outcome.message
        b.store.thaw()
        told = await b.desk.ask(Flush(5, key))
        assert (told.problem, told.files) == ("", [])
        assert b.store.listing(b.bucket) == {"f1": 1_000_000, "new": 300_000}

    run(main, buckets)


@long
def test_what_is_in_the_cache_is_uploaded_where_the_store_comes_back(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await begin(
            b, f"{WRITE}; {READ}",
            b_cache=CacheOptions(write_back=600.0),
        )  # fmt: skip
        await b.said(key, "wrote")
        await waits(b, key)
        await b.desk.send(Stop(key, 0.0))
        await b.desk.reaches(key, "finishing")
        await b.desk.until(lambda: health(b, key).message)
        b.store.thaw()
        held = await b.desk.done(key)
        assert held.outcome.kind == "stopped"
        assert b.store.listing(b.bucket) == {"f1": 1_000_000, "new": 300_000}
        await b.desk.forget(key)

    run(main, buckets)


@long
def test_a_file_that_was_being_streamed_is_named(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await begin(b, "exec cat /dev/zero > /data/new", mode="mount")
        await waits(b, key)
        await b.desk.send(Stop(key, 0.0))
        held = await ended(b, key)
        assert held.outcome is not None
        assert held.outcome.kind == "not-flushed"
        assert "missing: /data/new; nothing of them is on the node" in held.outcome.message

    run(main, buckets)


@long
def test_it_is_told_and_when_it_is_over(buckets: Any) -> None:
    async def main(b: Any) -> None:
        began = time.time()
        key = await begin(b, "cat /data/f1 > /dev/null; read x < gate")
        await b.desk.until(lambda: health(b, key).stalled)
        stalled = health(b, key)
        print(f"told after {time.time() - began:.1f} s: {stalled.message}")
        assert stalled.message.startswith("stalled: store s3 has not answered for ")
        b.store.thaw()
        await b.desk.until(lambda: not health(b, key).stalled)
        assert health(b, key).message.startswith("waited ")
        gate = b.world.attempt(key) / "work" / "gate"
        await asyncio.to_thread(gate.write_text, "go\n")
        held = await ended(b, key)
        assert held.outcome is not None
        assert held.outcome.exit_code == 0

    run(main, buckets)


@long
def test_an_upload_that_nobody_waits_for_is_told_too(buckets: Any) -> None:
    async def main(b: Any) -> None:
        b.desk.patience = 60.0
        key = await begin(b, "head -c 3000000 /dev/zero > /data/new; exec tail -f /dev/null")
        await b.desk.until(lambda: health(b, key).stalled)
        b.store.thaw()
        await b.desk.until(lambda: not health(b, key).stalled)
        await b.desk.send(Stop(key, 0.0))
        await b.desk.done(key)
        assert b.store.listing(b.bucket) == {"f1": 1_000_000, "new": 3_000_000}
        await b.desk.forget(key)

    run(main, buckets)
