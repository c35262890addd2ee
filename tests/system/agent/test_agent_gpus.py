"""GPUs and health, from stand-ins to what the server is told and jobs see."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import gpustubs
from moorage.protocol.agent import Launch, Limits
from moorage.protocol.health import CheckHealth, GpuHealth, Health
from system.agent_harness import PATIENCE

Make = Callable[..., Launch]


@pytest.fixture
def _two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(gpustubs.library(tmp_path / "nvml")))
    monkeypatch.setenv("FAKE_NVML", "sick")


@pytest.mark.usefixtures("_two_gpus")
def test_gpus_reach_the_server_and_one_of_them_the_job(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            gpus = w.desk.hellos[-1].resources.gpus
            assert [(gpu.index, gpu.uuid) for gpu in gpus] == [(0, "GPU-0"), (1, "GPU-1")]
            key = await w.desk.start(launch("echo $CUDA_VISIBLE_DEVICES", limits=Limits(gpus=[1])))
            assert await w.desk.log(key) == "GPU-1\n"
            await w.desk.done(key)
            await w.desk.forget(key)
            lost = await w.desk.run(launch("true", job=2, limits=Limits(gpus=[5])))
            assert lost.outcome.kind == "phase-failed"
            assert "GPU 5 of this node is gone" in lost.outcome.message
            await w.desk.send(CheckHealth())
            sick = "3 uncorrected ECC errors since the driver was loaded"
            told = await w.desk.until(lambda: w.desk.healths and w.desk.healths[-1])
            assert told == Health("warning", f"GPU 1: {sick}", [GpuHealth(1, "failure", sick)])

    asyncio.run(main())


def test_a_fleet_s_check_is_run_and_ends_with_the_agent(world: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            await w.desk.send(CheckHealth("echo full; exit 1", 60.0, 10.0))
            await w.desk.until(lambda: w.desk.healths == [Health("failure", "full")])
            os.mkfifo(tmp_path / "gate")
            await w.desk.send(CheckHealth(f"echo $$ > {tmp_path}/gate; sleep 1000", 60.0, 600.0))
            pid = int(await asyncio.to_thread((tmp_path / "gate").read_text))
            await w.end_agent()
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                ended = await asyncio.to_thread(select.select, [descriptor], [], [], PATIENCE)
                os.close(descriptor)
                assert ended[0]

    asyncio.run(main())
