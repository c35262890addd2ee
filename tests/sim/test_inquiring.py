"""Many nodes lack something at once: the others are asked, and no answer does harm."""

from __future__ import annotations

import os
from contextlib import closing

import pytest

from moorage.core import inquiries
from moorage.core.reactor import answers, ends
from moorage.core.refusals import shapes_beside
from sim.heal import heal
from sim.ledger import Broken
from sim.schedule import Schedule

SEEDS = range(4, 4 + 2 * int(os.environ.get("MOORAGE_TEST_ROUNDS", "1")))
NODES, EVENTS = 6, 1000


def lived(seed: int) -> int:
    """How often jobs kept away from nodes that had only answered."""
    schedule = Schedule(seed, NODES)
    schedule.faults = {"lack": 30.0, "crash": 0.5, "break": 2.0, "agent": 1.0, "cut": 0.5}
    schedule.ranks, schedule.pace = (1, 1, 1, 2), 0.25
    with closing(schedule.world) as world:
        kept = 0
        while world.events < EVENTS:
            schedule.run(world.events + 20)
            world.promises.everything()
            kept += any(job.lacking for job in world.leader.cluster.jobs.values())
        heal(world)
        return kept


def test_every_promise_holds_where_nodes_are_asked() -> None:
    assert sum(lived(seed) for seed in SEEDS)


def test_a_job_that_keeps_away_from_all_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiries, "any_left", lambda *_: True)
    with pytest.raises(Broken):
        for seed in range(13, 34):
            lived(seed)


def test_what_nodes_only_said_is_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def believe(cluster, run, job, now):
        job.refusals |= inquiries.lacking(run, job.refusals, now)
        cluster.reshape(job, shapes_beside(cluster, run, job.refusals))

    monkeypatch.setattr(answers, "learn", believe)
    monkeypatch.setattr(ends, "any_left", lambda *_: True)
    with pytest.raises(Broken):
        for seed in range(4, 24):
            lived(seed)
