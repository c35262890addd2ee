"""Agents with real buckets: SeaweedFS, rclone, processes that write, and what is left of them."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from moorage.data.rclone import program
from moorage.data.rclone.mount import RcloneMount
from moorage.protocol.agent import Held, Launch, ReadLog
from moorage.specs.mounts import Bucket
from system.agent_harness import World, agent_world, launch
from testbed.stores import StoreServer


class BucketWorld:
    """An agent whose server knows one store, `s3`, with an empty bucket."""

    def __init__(self, world: World, store: StoreServer) -> None:
        self.world, self.desk, self.store = world, world.desk, store
        self.bucket = store.make_bucket()
        world.desk.stores["s3"] = store.access

    def launch(self, *commands: str, mode: str = "cached", job: int = 1, **more: Any) -> Launch:
        """A job with the bucket at /data; fields of `Bucket` begin with `b_`."""
        fields = {k[2:]: more.pop(k) for k in list(more) if k.startswith("b_")}
        mount = Bucket("/data", store="s3", bucket=self.bucket, mode=mode, **fields)
        return launch(*commands, job=job, mounts=[mount], **more)

    async def run(self, *commands: str, **more: Any) -> Held:
        return await self.desk.run(self.launch(*commands, **more))

    async def said(self, key: str, word: str) -> None:
        """Until the job has printed it, or ended."""
        said = b""
        while word.encode() not in said:
            page = await self.desk.ask(ReadLog(11, key, len(said), wait=True))
            said += page.data
            if page.ended:
                return

    def mount(self, key: str) -> RcloneMount:
        return RcloneMount(self.world.attempt(key) / "mounts" / "0")

    def kill_rclone(self, key: str, number: int = signal.SIGKILL) -> None:
        if (pid := self.mount(key).find()) is not None:  # it may be over
            os.kill(pid, number)

    def leftovers(self) -> list[str]:
        """Processes and mounts of this agent's jobs."""
        home = str(self.world.directory)
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        found = [line for line in lines if home in line]
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "cwd").readlink().is_relative_to(f"{home}/attempts"):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        return found


@asynccontextmanager
async def _world(home: Path, store: StoreServer, *options: str) -> AsyncIterator[BucketWorld]:
    async with agent_world(home, *options) as world:
        try:
            yield BucketWorld(world, store)
        finally:
            store.thaw()  # where a test failed meanwhile: others need it too


Buckets = Callable[..., AbstractAsyncContextManager[BucketWorld]]


@pytest.fixture
def buckets(tmp_path: Path, seaweed: StoreServer) -> Buckets:
    """`async with buckets(*options of the agent) as b`."""
    if why := program.why_not():
        pytest.skip(why)
    return lambda *options: _world(tmp_path, seaweed, *options)
