"""The server is killed before and after each kind of commit, and round each message."""

from __future__ import annotations

import os
import time

import pytest

from system.crash.audit import Expected, audit
from system.crash.loads import RETRY, SMALL, Data, mixed
from system.crash.world import World

EDGES = ["before", "after"]
COMMITS = ["submit", "assign", "report", "end", "retry"]
MESSAGES = ["Start", "Ack", "Forget"]


@pytest.fixture(scope="module")
def data(world: World) -> Data:
    return Data(world)


POINTS = [
    *(f"server.commit.{kind}.{edge}" for kind in COMMITS for edge in EDGES),
    *(f"server.send.{kind}.{edge}" for kind in MESSAGES for edge in EDGES),
    "server.submit.after",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_server_killed_there_loses_nothing(world: World, data: Data, point: str) -> None:
    world.arm(point)
    expected = mixed(world, data)
    fails_once = world.ledger.command("test $MOORAGE_ATTEMPT -gt 1 || exit 3")
    run = world.submit(commands=[fails_once], retry=RETRY, resources=SMALL)
    audit(world, expected | {run: Expected(retried=True)})
    assert world.disarm(point), "nothing came there"
    assert len(world.end(run)["jobs"][0]["attempts"]) >= 2


@pytest.mark.parametrize("edge", EDGES)
def test_a_server_killed_while_a_node_greets_loses_nothing(
    world: World, data: Data, edge: str
) -> None:
    expected = mixed(world, data)
    world.arm(f"server.commit.node.{edge}")
    assert world.kill("agent")
    audit(world, expected)
    assert world.disarm(f"server.commit.node.{edge}")


STOPS = [f"server.{what}.{edge}" for what in ("commit.cancel", "send.Stop") for edge in EDGES]


@pytest.mark.parametrize("point", [*STOPS, "server.commit.end.before", "server.commit.end.after"])
def test_a_stop_that_was_answered_is_carried_out(world: World, point: str) -> None:
    command = world.ledger.command("sleep 100 & wait")
    run = world.submit(commands=[command], resources=SMALL, stop_duration=5)
    world.ledger.until("begin", world.show(run)["jobs"][0]["id"])
    world.arm(point)
    assert world.call("POST", f"/v1/runs/{run}/stop", {}).status == 200
    audit(world, {run: Expected(stopped=True)})
    assert world.disarm(point)
    assert world.end(run)["summary"]["state"] == "cancelled"


@pytest.mark.parametrize("edge", EDGES)
def test_a_waiting_job_that_was_stopped_never_runs(world: World, edge: str) -> None:
    whole = {"cpu": {"count": {"min": len(os.sched_getaffinity(0))}}}
    with world.ledger.closed("room") as gate:
        command = world.ledger.command(world.ledger.waiting(gate))
        first = world.submit(commands=[command], resources=whole)
        world.ledger.until("begin", world.show(first)["jobs"][0]["id"])
        second = world.submit(commands=[world.ledger.command()], resources=whole)
        world.arm(f"server.commit.cancel.{edge}")
        assert world.call("POST", f"/v1/runs/{second}/stop", {}).status == 200
        assert world.disarm(f"server.commit.cancel.{edge}")
        assert world.end(second)["summary"]["state"] == "cancelled"
    audit(world, {first: Expected(), second: Expected(stopped=True)})
    assert not world.ledger.lines(world.show(second)["jobs"][0]["id"])


@pytest.mark.parametrize(
    "point",
    ["server.commit.delete.before", "server.commit.delete.after", "server.send.DropLogs.before"],
)
def test_a_delete_that_was_answered_is_carried_out(world: World, point: str) -> None:
    run = world.submit(commands=[world.ledger.command("echo words")], resources=SMALL)
    audit(world, {run: Expected()})
    key = f"{world.show(run)['jobs'][0]['id']}.1.0"
    logs = world.home / "agent" / "logs" / key
    assert logs.exists()
    world.arm(point)
    assert world.call("DELETE", f"/v1/runs/{run}").status in (200, 204, 404)
    assert world.disarm(point)
    assert world.call("GET", f"/v1/runs/{run}").status == 404


@pytest.mark.parametrize("edge", EDGES)
def test_a_firing_of_a_schedule_starts_one_job(world: World, edge: str) -> None:
    # The next minute begins in a moment, and not before a slow server has started: else it is a
    # whole minute until the one after it.
    world.set_clock(60 - time.time() % 60 - 3.5)
    world.restart_server()
    point = f"server.commit.fire.{edge}"
    world.arm(point)
    run = world.submit(
        commands=[world.ledger.command()], resources=SMALL, schedule={"cron": ["* * * * *"]}
    )
    assert world.fired(point, 100.0)
    job = world.job_of(run)
    world.ledger.until("end", job)
    assert world.call("POST", f"/v1/runs/{run}/stop", {}).status == 200
    audit(world, {run: Expected(stopped=True)})
    assert world.disarm(point)
    assert len(world.show(run)["jobs"]) == 1
    assert [line.word for line in world.ledger.lines(job)] == ["begin", "end"]
