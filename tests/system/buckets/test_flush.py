"""What a job wrote into a bucket is there when it counts as done, whatever ended it."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest

from moorage.data.rclone import fuse
from moorage.protocol.agent import Limits, Stop
from moorage.protocol.flush import Flush
from moorage.specs.mounts import CacheOptions

pytestmark = pytest.mark.root

WRITE = "for i in 1 2 3 4 5 6 7 8; do head -c 3000000 /dev/urandom > /data/f$i; done"
STAY = f"{WRITE}; echo written; exec tail -f /dev/null"
WRITTEN = {f"f{i}": 3_000_000 for i in range(1, 9)}


def run(main: Callable[[Any], Any], buckets: Any) -> None:
    async def body() -> None:
        async with buckets() as b:
            await main(b)
            assert b.leftovers() == []

    asyncio.run(body())


@pytest.mark.parametrize("mode", ["mount", "cached"])
@pytest.mark.parametrize(("last", "code"), [("true", 0), ("exit 7", 7)])
def test_success_and_failure(buckets: Any, mode: str, last: str, code: int) -> None:
    async def main(b: Any) -> None:
        held = await b.run(f"{WRITE}; {last}", mode=mode)
        assert (held.outcome.kind, held.outcome.exit_code) == ("exited", code), held
        assert b.store.listing(b.bucket) == WRITTEN

    run(main, buckets)


@pytest.mark.parametrize("mode", ["mount", "cached"])
@pytest.mark.parametrize("grace", [5.0, 0.0])
def test_stop(buckets: Any, mode: str, grace: float) -> None:
    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch(STAY, mode=mode))
        await b.said(key, "written")
        await b.desk.send(Stop(key, grace))
        held = await b.desk.done(key)
        assert held.outcome.kind == "stopped"
        assert b.store.listing(b.bucket) == WRITTEN
        await b.desk.forget(key)

    run(main, buckets)


def test_timeout(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await b.desk.start(
            b.launch(
                "for i in 1 2 3 4 5 6 7 8; do head -c 3000000 /dev/urandom > /data/f$i; "
                "echo f$i; done; exec tail -f /dev/null",
                max_duration=3.0,
                stop_duration=0.0,
            )
        )
        held = await b.desk.done(key)
        assert held.outcome.kind == "timeout"
        written = (await b.desk.log(key)).split()  # on a slow machine not all of them
        found = b.store.listing(b.bucket)
        assert {name: found.get(name) for name in written} == dict.fromkeys(written, 3_000_000)
        await b.desk.forget(key)

    run(main, buckets)


def test_out_of_memory(buckets: Any) -> None:
    async def main(b: Any) -> None:
        eat = "head -c 4000000000 /dev/zero | tail"
        held = await b.run(f"{WRITE}; {eat}", limits=Limits(memory=64 << 20))
        assert held.outcome.kind == "out-of-memory", held.outcome
        assert b.store.listing(b.bucket) == WRITTEN

    run(main, buckets)


@pytest.mark.parametrize("when", ["running", "flushing"])
def test_agent_killed(buckets: Any, when: str) -> None:
    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch(STAY, b_cache=CacheOptions(write_back=600.0)))
        await b.said(key, "written")
        if when == "flushing":
            b.store.freeze()
            await b.desk.send(Stop(key, 0.0))
            await b.desk.reaches(key, "finishing")
        await b.world.end_agent(signal.SIGKILL)
        b.store.thaw()
        await b.world.start_agent()
        if when == "running":
            await b.desk.reaches(key, "running")
            await b.desk.send(Stop(key, 0.0))
        await b.desk.done(key)
        assert b.store.listing(b.bucket) == WRITTEN
        await b.desk.forget(key)

    run(main, buckets)


def test_keeper_lost(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch(STAY, b_cache=CacheOptions(write_back=600.0)))
        await b.said(key, "written")
        b.world.kill_keeper()
        held = await b.desk.done(key)
        assert held.outcome.kind == "lost"
        assert b.store.listing(b.bucket) == WRITTEN
        await b.desk.forget(key)

    run(main, buckets)


def test_rclone_killed_with_all_still_to_upload(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch(STAY, b_cache=CacheOptions(write_back=600.0)))
        await b.said(key, "written")
        b.kill_rclone(key)
        await b.desk.send(Stop(key, 0.0))
        await b.desk.done(key)
        assert b.store.listing(b.bucket) == WRITTEN
        await b.desk.forget(key)

    run(main, buckets)


def test_all_is_gone_at_once_as_after_a_power_cut(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch(STAY, b_cache=CacheOptions(write_back=600.0)))
        await b.said(key, "written")
        await b.world.end_agent(signal.SIGKILL)
        b.kill_rclone(key)
        b.world.kill_keeper()
        for place in ("at", "raw"):
            fuse.unmount(b.mount(key).directory / place)
        await b.world.start_agent()
        held = await b.desk.done(key)
        assert held.outcome.kind == "lost"
        assert b.store.listing(b.bucket) == WRITTEN
        await b.desk.forget(key)

    run(main, buckets)


def test_an_idle_mount_costs_next_to_nothing(buckets: Any) -> None:
    """Not even an answer of the store."""

    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch("ls /data; echo up; exec tail -f /dev/null"))
        await b.said(key, "up")
        b.store.freeze()
        await b.desk.send(Stop(key, 0.0))
        held = await b.desk.done(key)
        assert held.outcome.kind == "stopped"
        flush = next(phase for phase in held.phases if phase.name == "flush")
        assert flush.ended - flush.began < 30.0
        b.store.thaw()
        await b.desk.forget(key)

    run(main, buckets)


def test_a_flush_says_how_far_it_is(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch(STAY, b_cache=CacheOptions(write_back=600.0)))
        await b.said(key, "written")
        b.store.freeze()
        await b.desk.send(Stop(key, 0.0))
        said = await b.desk.until(lambda: _flush_detail(b.desk.held.get(key)))
        assert re.fullmatch(r"flushing [\d.]+( [kM]?B)? of [\d.]+ MB", said)
        b.store.thaw()
        await b.desk.done(key)
        assert b.store.listing(b.bucket) == WRITTEN
        await b.desk.forget(key)

    run(main, buckets)


def _flush_detail(held: Any) -> str:
    phases = [phase for phase in held.phases if phase.name == "flush"] if held else []
    return phases[0].detail if phases else ""


def test_what_cannot_be_uploaded_is_told_and_kept_and_uploaded_later(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch(f"{WRITE}; echo written; read x < /dev/zero; exit 3",
                                          b_flush_timeout=2.0,
                                          b_cache=CacheOptions(write_back=600.0)))  # fmt: skip
        await b.said(key, "written")
        b.store.freeze()
        await b.desk.send(Stop(key, 0.0))
        held = await b.desk.done(key)
        assert held.outcome.kind == "not-flushed"
        assert "/data/f1" in held.outcome.message
        assert "storage flush" in held.outcome.message
        await b.desk.forget(key)
        kept = b.world.directory / "unflushed" / key
        assert kept.is_dir()
        assert b.leftovers() == []
        assert b.store.access.secrets["secret_access_key"] not in (
            (kept / "0" / "how").read_text()
        )
        b.store.thaw()
        told = await b.desk.ask(Flush(5, key))
        assert (told.problem, told.files) == ("", [])
        assert not kept.exists()
        assert b.store.listing(b.bucket) == WRITTEN
        told = await b.desk.ask(Flush(6, key))
        assert told.unknown

    run(main, buckets)
