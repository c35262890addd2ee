"""Kills and ends at random moments while a job writes: what it was told to be written is in the
bucket, and nothing is left on the node. `MOORAGE_TEST_ROUNDS` says how many (200 take an hour)."""

from __future__ import annotations

import asyncio
import os
import random
import shlex
import signal
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from moorage.protocol.agent import Limits, Stop
from moorage.specs.mounts import CacheOptions

pytestmark = pytest.mark.root

ROUNDS = int(os.environ.get("MOORAGE_TEST_ROUNDS", "3"))
SEED = int(os.environ.get("MOORAGE_TEST_SEED", "0")) or random.randrange(1 << 30)
FILES = 24
WRITER = """
import hashlib, os, random, sys
acknowledged = 0
while acknowledged < int(sys.argv[1]):
    body = os.urandom(random.choice((10, 50_000, 400_000, 3_000_000)))
    try:
        with open(f"/data/f{acknowledged}", "wb") as file:
            file.write(body)
    except OSError:
        continue  # nobody promised anything: once more
    print("ack", acknowledged, hashlib.md5(body, usedforsecurity=False).hexdigest(), flush=True)
    acknowledged += 1
"""
VICTIMS = ("nobody", "rclone", "rclone", "hang", "agent", "keeper", "agent+rclone", "store")
ENDS = ("itself", "itself", "failure", "stop", "abort", "timeout", "memory")


@dataclass(frozen=True)
class Round:
    mode: str
    write_back: float
    victim: str
    after: int
    """Acknowledged files."""
    end: str


def rounds() -> list[Round]:
    chance = random.Random(SEED)
    return [
        Round(
            chance.choice(("mount", "cached", "cached")),
            chance.choice((0.1, 1.0, 300.0)),
            chance.choice(VICTIMS),
            chance.randrange(FILES // 2),
            chance.choice(ENDS),
        )
        for _ in range(ROUNDS)
    ]


@pytest.mark.timeout(120 + 40 * ROUNDS)
def test_nothing_acknowledged_is_lost(buckets: Any) -> None:
    async def main() -> None:
        async with buckets() as b:
            b.desk.patience = 90.0  # one that hangs is ended after 8 s, and then all is uploaded
            for number, one in enumerate(rounds(), 1):
                print(f"seed {SEED}, round {number}: {one}")
                await play(b, number, one)

    asyncio.run(main())


async def play(b: Any, number: int, one: Round) -> None:
    b.bucket = b.store.make_bucket()
    after = {"failure": "; exit 3", "memory": "; head -c 4G /dev/zero | tail"}.get(one.end, "")
    endless = one.end in ("stop", "abort", "timeout")
    count = 100_000 if endless else FILES
    writer = f"{sys.executable} -c {shlex.quote(WRITER)} {count}"
    more: dict[str, Any] = {}
    if one.end == "timeout":
        more["max_duration"] = 2.5
    if one.end == "memory":
        more["limits"] = Limits(memory=96 << 20)
    key = await b.desk.start(
        b.launch(
            f"{writer}{after}", mode=one.mode, job=number, stop_duration=0.0,
            b_cache=CacheOptions(write_back=one.write_back), **more,
        )
    )  # fmt: skip
    await b.desk.reaches(key, "running", "finishing", "done")
    if one.after:
        await b.said(key, f"ack {one.after} ")
    await strike(b, key, one.victim)
    if one.end in ("stop", "abort"):
        await b.desk.send(Stop(key, 0.0 if one.end == "abort" else 2.0))
    held = await b.desk.done(key)
    assert held.outcome.kind != "not-flushed", held.outcome
    told = dict(
        line.split()[1:]
        for line in (await b.desk.log(key)).splitlines()
        if line.startswith("ack ")
    )
    stored = b.store.rclone("hashsum", "md5", "--download", f"X:{b.bucket}").decode()
    found = {line.split()[1].removeprefix("f"): line.split()[0] for line in stored.splitlines()}
    lost = {n: digest for n, digest in told.items() if found.get(n) != digest}
    assert not lost, (held, len(told))
    await b.desk.forget(key)
    assert b.leftovers() == []


async def strike(b: Any, key: str, victim: str) -> None:
    if victim == "store":
        b.store.freeze()
        await asyncio.sleep(0.5)  # how long it stands still
        b.store.thaw()
    if victim == "hang":
        b.kill_rclone(key, signal.SIGSTOP)
    if "agent" in victim:
        await b.world.end_agent(signal.SIGKILL)
    if "rclone" in victim:
        b.kill_rclone(key)
    if "agent" in victim:
        await b.world.start_agent()
    if victim == "keeper":
        b.world.kill_keeper()
