"""The machine goes down: every process at once, and with it what was not forced to the disk. The
node comes back with another boot id."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from moorage.specs.mounts import Files
from moorage.specs.task import Task
from system.crash.audit import Expected, audit, groups
from system.crash.loads import RETRY, SMALL, Data
from system.crash.world import World
from system.keeper_harness import end_all, gone

LOST_FILES = ["launch.msgpack", "phases.jsonl", "spawned.json"]


def reboot(world: World, number: int) -> None:
    """Everything ends without a word; control groups live in memory, and go."""
    world.stop(signal.SIGKILL)
    keeper = world.pid("keeper")
    if world.kill("keeper"):  # first of all: it would write down how its jobs ended
        gone(keeper)
    end_all(world.home)
    for group in groups(world.home):
        with suppress(OSError):
            Path(group).rmdir()
    (world.faults / "boot_id").write_text(f"00000000-0000-0000-0000-{number:012}\n")


@pytest.mark.parametrize("torn", ["", *LOST_FILES, "all"])
def test_a_reboot_ends_what_ran_and_says_so(world: World, torn: str) -> None:
    data = Data(world) if not (world.home.parent / "files").exists() else None
    mounts = {"mounts": data.mounts} if data else {}
    with world.ledger.closed(f"reboot-{torn}") as gate:
        wait = world.ledger.waiting(gate)
        ends = world.submit(commands=[world.ledger.command(wait)], resources=SMALL, **mounts)
        again = world.submit(
            commands=[world.ledger.command(f"test $MOORAGE_ATTEMPT -gt 1 || {wait}")],
            resources=SMALL,
            retry=RETRY,
        )
        stopped = world.submit(
            commands=[world.ledger.command(f"trap '' TERM; {wait}; {wait}")], resources=SMALL
        )
        for run in (ends, again, stopped):
            world.ledger.until("begin", world.job_of(run))
        assert world.call("POST", f"/v1/runs/{stopped}/stop", {}).status == 200
        reboot(world, LOST_FILES.index(torn) if torn in LOST_FILES else 7 + len(torn))
        for attempt in (world.home / "agent" / "attempts").iterdir():
            for path in attempt.iterdir():
                if path.is_file() and torn in (path.name, "all"):
                    os.truncate(path, 0)
        world.start()
        expected = {
            ends: Expected(fragile=True),
            again: Expected(retried=True),
            stopped: Expected(stopped=True),
        }
        audit(world, expected)
    [job] = world.show(ends)["jobs"]
    assert (job["state"], job["reason"]) == ("failed", "lost")
    assert "exit_code" not in job
    if not torn:
        assert job["message"] == "the node was rebooted while it ran"
    assert world.show(again)["jobs"][0]["attempts"][0]["outcome"]["kind"] == "lost"
    assert world.show(stopped)["summary"]["state"] == "cancelled"


def test_files_that_the_cache_lost_are_fetched_again(world: World) -> None:
    (world.home.parent / "more").mkdir()
    for number in range(5):
        (world.home.parent / "more" / f"{number}.txt").write_text(f"more {number}\n" * 500)
    mount = world.upload(Task(commands=["true"], mounts=[Files("more", "in")])).mounts[0]
    spec = {
        "commands": [world.ledger.command("test $(cat in/*.txt | wc -l) = 2500")],
        "mounts": [{"type": "files", "source": mount.source, "target": "in", "tree": mount.tree}],
        "resources": SMALL,
    }
    audit(world, {world.submit(**spec): Expected()})
    reboot(world, 99)
    kept = [path for path in (world.home / "agent" / "cache").rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        path.chmod(0o600)
        os.truncate(path, 0)
    world.start()
    audit(world, {world.submit(**spec): Expected()})
