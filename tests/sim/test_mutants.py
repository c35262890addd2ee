"""The judge is judged: what is broken on purpose is found soon, and told in a few steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sim.campaign import explore
from sim.ledger import Broken
from sim.mutants import KEPT, LEASES, MUTANTS
from sim.refusing import REFUSALS
from sim.replay import Recording, replay
from sim.schedule import Schedule

SEEDS = range(1, 61)
EVENTS = 300
STEPS = 20
DOUBTS = {**LEASES, **REFUSALS}
INTRICATE = frozenset({"what has begun is given back"})
"""Takes a full node, a line, and another node that falls free at the right time: found, but not in
so few steps."""


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        MUTANTS[name](patch)
        enough = EVENTS if name in INTRICATE else STEPS
        tries = (explore(seed, 3, EVENTS, enough) for seed in SEEDS)
        found = next(filter(None, tries), None)
        assert found is not None, f"{name}: not found in {len(SEEDS)} x {EVENTS} events"
        assert len(found.recording.steps) <= enough, str(found)
    assert replay(found.recording) is None, "the sound one fails too"


@pytest.mark.parametrize("name", KEPT)
def test_a_kept_schedule_shows_what_it_was_kept_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording.load(Path(__file__).with_name("replays") / f"{name}.json")
    assert replay(recording) is None
    with monkeypatch.context() as patch:
        KEPT[name](patch)
        assert replay(recording) is not None


def _lives_through(where: Callable[[Schedule], None], seeds: range) -> None:
    for seed in seeds:
        schedule = Schedule(seed, 3)
        where(schedule)
        with closing(schedule.world):
            schedule.run(1500)


@pytest.mark.parametrize("name", DOUBTS)
def test_every_mutant_is_found_where_it_shows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    DOUBTS[name].mutate(monkeypatch)
    with pytest.raises(Broken):
        _lives_through(DOUBTS[name].where, SEEDS)


@pytest.mark.parametrize("where", dict.fromkeys(doubt.where for doubt in DOUBTS.values()))
def test_what_is_sound_lives_where_such_mutants_are_found(
    where: Callable[[Schedule], None],
) -> None:
    _lives_through(where, range(1, 16))
