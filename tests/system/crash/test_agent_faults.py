"""The agent is killed at each phase of an attempt, between its steps, and at each change that it
makes to the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.protocol.agent import PHASES
from system.crash.audit import Expected, audit, descriptors
from system.crash.loads import SMALL, Data, mixed
from system.crash.rounds import sample
from system.crash.world import World

EDGES = [
    f"agent.{edge}" for name in PHASES for edge in (f"begin.{name}.after", f"end.{name}.after")
]
STEPS = [
    "agent.take.before",
    "agent.take.after",
    "agent.spawn.before",
    "agent.spawn-asked",
    "agent.spawn.after",
    "agent.wait.after",
    "agent.end.run.before",
    "agent.finish.before",
    "agent.finish.after",
    "agent.keeper-forget.before",
    "agent.forget.before",
    "agent.forget.after",
]
CHANGES = 200
"""To the disk that an agent makes for the jobs of `mixed`, at least."""


@pytest.fixture(scope="module")
def data(world: World) -> Data:
    return Data(world)


@pytest.mark.parametrize("point", EDGES + STEPS)
def test_an_agent_killed_there_leaves_nothing_half(world: World, data: Data, point: str) -> None:
    world.arm(point)
    expected = mixed(world, data)
    audit(world, expected)
    assert world.disarm(point), "nothing came there"


@pytest.mark.parametrize("number", sample(CHANGES, 12))
def test_an_agent_killed_at_a_change_of_the_disk_leaves_nothing_half(
    world: World, data: Data, number: int
) -> None:
    world.arm("agent.change", str(number))
    expected = mixed(world, data)
    audit(world, expected)
    assert world.disarm("agent.change")


@pytest.mark.parametrize("abort", [False, True])
@pytest.mark.parametrize(
    "point",
    ["agent.wait.after", "agent.end.run.before", "agent.begin.clean.after", "agent.finish.before"],
)
def test_a_stop_goes_on_when_the_agent_is_killed(world: World, point: str, abort: bool) -> None:
    command = world.ledger.command("sleep 100 & wait")
    run = world.submit(commands=[command], resources=SMALL, stop_duration=5)
    world.ledger.until("begin", world.show(run)["jobs"][0]["id"])
    world.arm(point)
    assert world.call("POST", f"/v1/runs/{run}/stop", {"abort": abort}).status == 200
    audit(world, {run: Expected(stopped=True)})
    assert world.disarm(point)
    view = world.end(run)
    assert view["summary"]["state"] == "cancelled"
    assert view["summary"]["reason"] == ("aborted" if abort else "stopped")


def test_a_killed_agent_does_not_lengthen_max_duration(world: World) -> None:
    command = world.ledger.command("sleep 100 & wait")
    run = world.submit(
        commands=[command], resources=SMALL, max_duration=1, stop_duration=1, name="limited"
    )
    world.ledger.until("begin", world.show(run)["jobs"][0]["id"])
    assert world.kill("agent")
    audit(world, {run: Expected(reasons=("timeout",))})
    assert world.end(run)["summary"]["exit_code"] == 124


def test_all_three_may_be_killed_in_any_order(world: World) -> None:
    with world.ledger.closed("three") as gate:
        command = world.ledger.command(f"{world.ledger.waiting(gate)}; exit 5")
        run = world.submit(commands=[command], resources=SMALL)
        world.ledger.until("begin", world.show(run)["jobs"][0]["id"])
        for victims in (["server"], ["agent"], ["agent", "server"], ["server", "agent"]):
            for victim in victims:
                world.kill_surely(victim)
            world.show(run)
    audit(world, {run: Expected(5)})


def test_descriptors_do_not_add_up(world: World, data: Data) -> None:
    audit(world, mixed(world, data))
    before = descriptors(world)
    for _ in range(5):
        audit(world, mixed(world, data))
    after = descriptors(world)
    # A connection of ours that has just been closed may still be counted.
    assert all(after[name] <= before[name] + 2 for name in before), (before, after)


def test_mount_points_are_gone(world: World, data: Data) -> None:
    assert not data.point.exists()
    assert (data.volume / "written").stat().st_size > 0
    assert not list(Path("/mnt").glob(f"{data.point.name}*"))
