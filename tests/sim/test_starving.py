"""A stream of small jobs that never ends, and one that wants more than falls free at once."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from moorage.core.reactor import schedule
from sim.node import OK
from sim.world import World

SMALL = (1, 0, 0, 0, 0, "", "ends")
LARGE = {
    "alone": (1, 0, 0, 0, 0, "", "ends", 1, "any all-done", None, True),
    "a gang": (2, 0, 0, 0, 0, "", "ends", 2),
    "a gang alone": (1, 0, 0, 0, 0, "", "ends", 2, "any all-done", None, True),
}
LASTS, BEGINS, PATIENCE = 4, 8, 60
"""Turns."""


def turn(world: World, number: int, since: dict[str, int]) -> None:
    """Small jobs come, so that two of them wait; each lasts for some turns, and
    not for as long as the one beside it."""
    cluster = world.leader.cluster
    waiting = sum(job.state.name == "queued" for job in cluster.jobs.values())
    world.do_submit(f"small{number}", [SMALL] * (2 + ("large.0" in cluster.names) - waiting))
    for _ in range(2):  # what falls free is taken in the same turn
        world.do_pass()
        world.do_commit(1000)
        for name, node in world.nodes.items():
            world.do_deliver(name)
            for key, claim in list(node.claims.items()):
                began = since.setdefault(key, number)
                if claim.state != "running" or number - began >= LASTS + claim.launch.job % 2 * 3:
                    node.go(key, OK)
            world.do_report(name)
            while world.do_arrive(name):
                pass
            world.do_commit(1000)
            world.do_deliver(name)


def starts_after(large: tuple[Any, ...]) -> int | None:
    """Turns that it waits; None where that seems to have no end."""
    since: dict[str, int] = {}
    with closing(World({"n1": "small", "n2": "small"})) as world:
        for number in range(BEGINS + PATIENCE):
            if number == BEGINS:
                world.do_submit("large", [large])
            turn(world, number, since)
            found = world.leader.cluster.names.get("large.0")
            state = None if found is None else world.leader.cluster.runs[found].state
            if number > BEGINS and state != "queued":
                world.promises.everything()
                return number - BEGINS
    return None


@pytest.mark.parametrize("what", LARGE)
def test_it_starts_when_what_runs_has_ended(what: str) -> None:
    waited = starts_after(LARGE[what])
    assert waited is not None
    assert waited <= 2 * (LASTS + 3)


@pytest.mark.parametrize("what", LARGE)
def test_without_that_it_would_not(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(schedule.__globals__, "reserve", lambda *_: None)
    assert starts_after(LARGE[what]) is None
