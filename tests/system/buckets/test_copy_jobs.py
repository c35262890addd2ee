"""Mode `copy` in real jobs: what they see, and what is in the bucket, whatever ended them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imagebuild
from moorage.data.copies import overlay
from moorage.protocol.agent import Limits, Stop
from moorage.protocol.container import Container
from moorage.protocol.flush import Flush

pytestmark = pytest.mark.root

WRITE = "for i in 1 2 3 4; do head -c 300000 /dev/urandom > /data/f$i; echo f$i; done"
STAY = f"{WRITE}; echo written; exec tail -f /dev/null"
WRITTEN = {f"f{i}": 300_000 for i in range(1, 5)}


def run(main: Callable[[Any], Any], buckets: Any, *options: str) -> None:
    async def body() -> None:
        async with buckets(*options) as b:
            await main(b)
            assert b.leftovers() == []

    asyncio.run(body())


def copy(b: Any, *commands: str, **more: Any) -> Any:
    return b.launch(*commands, mode="copy", b_sync_back=True, **more)


@pytest.mark.parametrize("way", ["success", "failure", "stop", "timeout", "memory"])
def test_every_end(buckets: Any, way: str) -> None:
    async def main(b: Any) -> None:
        b.store.write(b.bucket, "f1", b"old")
        last = {"success": "true", "failure": "exit 7", "memory": "head -c 4G /dev/zero | tail"}
        more: dict[str, Any] = {"memory": {"limits": Limits(memory=64 << 20)}}.get(way, {})
        if way == "timeout":
            more = {"max_duration": 2.0, "stop_duration": 0.0}
        command = f"{WRITE}; {last[way]}" if way in last else STAY
        key = await b.desk.start(copy(b, command, **more))
        if way == "stop":
            await b.said(key, "written")
            await b.desk.send(Stop(key, 0.0))
        held = await b.desk.done(key)
        kinds = {"stop": "stopped", "timeout": "timeout", "memory": "out-of-memory"}
        assert held.outcome.kind == kinds.get(way, "exited"), held.outcome
        found = b.store.listing(b.bucket)
        if way == "timeout":  # on a slow machine before all is written
            written = (await b.desk.log(key)).split()
            kept = {name: found.get(name) for name in written if name in WRITTEN}
            assert kept.items() <= WRITTEN.items()
        else:
            assert found == WRITTEN
            [flush] = [phase for phase in held.phases if phase.name == "flush"]
            assert flush.detail == "/data: 4 files uploaded"
        await b.desk.forget(key)

    run(main, buckets)


def test_the_agent_is_killed_while_it_fetches_and_while_it_uploads(buckets: Any) -> None:
    async def main(b: Any) -> None:
        b.store.write(b.bucket, "in", b"input")
        b.store.freeze()
        key = await b.desk.start(copy(b, "cat /data/in"))
        await b.desk.reaches(key, "staging")
        await b.world.end_agent(signal.SIGKILL)
        b.store.thaw()
        await b.world.start_agent()
        held = await b.desk.done(key)
        assert held.outcome.kind == "unstarted"
        await b.desk.forget(key)
        key = await b.desk.start(copy(b, f"cat /data/in; {STAY}", job=2))
        await b.said(key, "written")
        b.store.freeze()
        await b.desk.send(Stop(key, 0.0))
        await b.desk.reaches(key, "finishing")
        await b.world.end_agent(signal.SIGKILL)
        b.store.thaw()
        await b.world.start_agent()
        await b.desk.done(key)
        assert b.store.listing(b.bucket) == {**WRITTEN, "in": 5}
        await b.desk.forget(key)

    run(main, buckets)


def test_all_is_gone_at_once_as_after_a_power_cut(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await b.desk.start(copy(b, STAY))
        await b.said(key, "written")
        await b.world.end_agent(signal.SIGKILL)
        b.world.kill_keeper()
        overlay.leave(b.world.attempt(key) / "mounts" / "0")
        await b.world.start_agent()
        held = await b.desk.done(key)
        assert held.outcome.kind == "lost"
        assert b.store.listing(b.bucket) == WRITTEN
        await b.desk.forget(key)

    run(main, buckets)


def test_what_could_not_be_uploaded_is_later(buckets: Any) -> None:
    async def main(b: Any) -> None:
        key = await b.desk.start(copy(b, STAY, b_flush_timeout=1.0))
        await b.said(key, "written")
        b.store.freeze()
        await b.desk.send(Stop(key, 0.0))
        held = await b.desk.done(key)
        b.store.thaw()
        assert held.outcome.kind == "not-flushed"
        assert "missing: /data/f1, /data/f2, /data/f3, /data/f4; kept" in held.outcome.message
        await b.desk.forget(key)
        answer = await b.desk.ask(Flush(9, key))
        assert answer.problem == ""
        assert b.store.listing(b.bucket) == WRITTEN
        assert not list((b.world.directory / "unflushed").iterdir())

    run(main, buckets)


def test_ranks_on_one_node_fetch_once_and_do_not_overwrite_each_other(buckets: Any) -> None:
    async def main(b: Any) -> None:
        b.store.write(b.bucket, "in", b"input")
        keys = []
        for rank in (0, 1):
            command = f"cat /data/in; echo {rank} > /data/shared; echo {rank} > /data/own{rank}"
            keys.append(await b.desk.start(copy(b, command, rank=rank)))
        details = [
            phase.detail
            for key in keys
            for phase in (await b.desk.done(key)).phases
            if phase.name == "fetch"
        ]
        assert sorted("nothing fetched" in detail for detail in details) == [False, True]
        there = b.store.listing(b.bucket)
        beside = {name for name in there if name.startswith("shared.moorage-")}
        assert set(there) == {"in", "shared", "own0", "own1", *beside}
        assert len(beside) == 1
        for key in keys:
            await b.desk.forget(key)

    run(main, buckets)


def test_read_only_and_one_object(buckets: Any) -> None:
    async def main(b: Any) -> None:
        b.store.write(b.bucket, "d/in", b"input")
        held = await b.run("cat /data/in; echo x > /data/in", mode="copy", b_path="d",
                           b_read_only=True)  # fmt: skip
        assert held.outcome.exit_code == 1
        held = await b.desk.run(copy(b, "echo more >> /data", job=2, b_path="d/in"))
        assert held.outcome.exit_code == 0, await b.desk.log(held.key)
        assert b.store.read(b.bucket, "d/in") == b"inputmore\n"

    run(main, buckets)


@pytest.mark.parametrize("user", [None, "ann"])
@pytest.mark.parametrize("engine", ["moorage", "podman"])
def test_in_containers(buckets: Any, tmp_path: Path, engine: str, user: str) -> None:
    if not imagebuild.BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    box = imagebuild.docker_archive(
        tmp_path / "box.tar", [imagebuild.busybox()], Env=["PATH=/bin"]
    )

    async def main(b: Any) -> None:
        if (why := b.desk.hellos[-1].isolation.containers) is not None:
            pytest.skip(why)
        b.store.write(b.bucket, "d/in", b"from the store\n")
        b.store.write(b.bucket, "same", b"same")
        container = Container(f"docker-archive:{box}", user=user)
        key = await b.desk.start(
            copy(
                b,
                "cat /data/d/in && echo more >> /data/d/in && mv /data/d /data/e && "
                "mkdir /data/d && echo out > /data/d/out && [ -O /data/same ]",
                container=container,
            )
        )
        held = await b.desk.done(key)
        assert held.outcome.exit_code == 0, (held.outcome, await b.desk.log(key))
        assert set(b.store.listing(b.bucket)) == {"d/in", "d/out", "e/in", "same"}
        assert b.store.read(b.bucket, "e/in") == b"from the store\nmore\n"
        [flush] = [phase for phase in held.phases if phase.name == "flush"]
        assert flush.detail.startswith("/data: 2 files uploaded; 1 object stays")
        await b.desk.forget(key)

    run(main, buckets, "--engines", engine)
