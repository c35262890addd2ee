"""The keeper is killed at each step of a start and of an end. What it alone knew is lost, said so,
and ended; what it had written down is kept."""

from __future__ import annotations

import pytest

from system.crash.audit import Expected, audit
from system.crash.loads import RETRY, SMALL, Data, mixed
from system.crash.rounds import sample
from system.crash.world import World

UNKNOWN = [
    "keeper.clone.before",
    "keeper.clone.after",
    "keeper.note.before",
    "keeper.note.after",
    "keeper.ended.after",
    "keeper.save.before",
]
KNOWN = ["keeper.save.after", "keeper.tell.before", "keeper.tell.after"]
CHANGES = 30
"""To the disk that a keeper makes for the jobs of `mixed`, at least."""


@pytest.fixture(scope="module")
def data(world: World) -> Data:
    return Data(world)


@pytest.mark.parametrize("point", UNKNOWN + KNOWN)
def test_a_keeper_killed_there_leaves_nothing_half(world: World, data: Data, point: str) -> None:
    world.arm(point)
    expected = mixed(world, data, fragile=True)
    audit(world, expected)
    assert world.disarm(point), "nothing came there"


@pytest.mark.parametrize("number", sample(CHANGES, 6))
def test_a_keeper_killed_at_a_change_of_the_disk_leaves_nothing_half(
    world: World, data: Data, number: int
) -> None:
    world.arm("keeper.change", str(number))
    expected = mixed(world, data, fragile=True)
    audit(world, expected)
    assert world.disarm("keeper.change")


@pytest.mark.parametrize("point", KNOWN)
def test_an_exit_code_that_was_written_down_survives_the_keeper(world: World, point: str) -> None:
    world.arm(point)
    run = world.submit(commands=[world.ledger.command("exit 7")], resources=SMALL)
    audit(world, {run: Expected(7)})
    assert world.disarm(point)
    assert world.end(run)["summary"]["exit_code"] == 7


@pytest.mark.parametrize("also", [[], ["agent"], ["agent", "server"]])
def test_a_killed_keeper_is_said_and_its_job_ended(world: World, also: list[str]) -> None:
    command = world.ledger.command("sleep 100 & sleep 200")
    run = world.submit(commands=[command], resources=SMALL)
    job = world.show(run)["jobs"][0]["id"]
    world.ledger.until("begin", job)
    for victim in ["keeper", *also]:
        assert world.kill(victim)
    audit(world, {run: Expected(fragile=True)})
    [shown] = world.end(run)["jobs"]
    assert (shown["state"], shown["reason"]) == ("failed", "lost")
    assert "keeper" in shown["message"]
    assert "exit_code" not in shown, "nobody can know it"


def test_a_lost_attempt_is_dead_before_the_next_begins(world: World) -> None:
    with world.ledger.closed("second") as gate:
        command = world.ledger.command(world.ledger.waiting(gate))
        run = world.submit(commands=[command], resources=SMALL, retry=RETRY)
        job = world.show(run)["jobs"][0]["id"]
        for attempt in (1, 2):
            world.ledger.until("begin", job, attempt)
            assert world.kill("keeper")
        world.ledger.until("begin", job, 3)
    audit(world, {run: Expected(retried=True)})
    assert len(world.end(run)["jobs"][0]["attempts"]) == 3


def test_a_stop_is_kept_when_the_keeper_is_killed(world: World) -> None:
    command = world.ledger.command("trap '' TERM; sleep 100 & sleep 200")
    run = world.submit(commands=[command], resources=SMALL, stop_duration=100)
    world.ledger.until("begin", world.show(run)["jobs"][0]["id"])
    assert world.call("POST", f"/v1/runs/{run}/stop", {}).status == 200
    assert world.kill("keeper")
    audit(world, {run: Expected(stopped=True)})
    assert world.end(run)["summary"]["state"] == "cancelled"
