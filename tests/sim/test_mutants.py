"""The judge is judged: what is broken on purpose is found soon, and told in a few steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import pytest

from sim.campaign import explore
from sim.ledger import Broken
from sim.mutants import KEPT, LEASES, MUTANTS
from sim.refusing import REFUSALS
from sim.replay import Recording, replay
from sim.schedule import Schedule

SEEDS = range(1, 61)
FOUND: Mapping[str, int] = MappingProxyType(
    {
        "leases end early on the server": 20,
        "lines outlive the lease": 15,
        "lost ranks are overlooked": 20,
        "old messages are obeyed": 31,
        "output is dropped once": 8,
        "room of ghosts is given away": 22,
        "two leaders write": 11,
        "what has begun is given back": 33,
    }
)
"""The first seed that found it when this was written, where that is late. It is tried first, which
saves a minute; where the schedules have changed since, all others follow."""
EVENTS = 300
STEPS = 20
DOUBTS = {**LEASES, **REFUSALS}
INTRICATE = frozenset({"what has begun is given back"})
"""Takes a full node, a line, and another node that falls free at the right time: found, but not in
so few steps."""


def seeds_for(name: str) -> list[int]:
    return sorted(SEEDS, key=lambda seed: seed != FOUND.get(name))


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        MUTANTS[name](patch)
        enough = EVENTS if name in INTRICATE else STEPS
        tries = (explore(seed, 3, EVENTS, enough) for seed in seeds_for(name))
        found = next(filter(None, tries), None)
        assert found is not None, f"{name}: not found in {len(SEEDS)} x {EVENTS} events"
        assert len(found.recording.steps) <= enough, str(found)
    assert replay(found.recording) is None, "the sound one fails too"


def test_what_was_found_is_broken_still() -> None:
    assert FOUND.keys() <= {*MUTANTS, *DOUBTS}


@pytest.mark.parametrize("name", KEPT)
def test_a_kept_schedule_shows_what_it_was_kept_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording.load(Path(__file__).with_name("replays") / f"{name}.json")
    assert replay(recording) is None
    with monkeypatch.context() as patch:
        KEPT[name](patch)
        assert replay(recording) is not None


def _lives_through(where: Callable[[Schedule], None], seeds: Iterable[int]) -> None:
    for seed in seeds:
        schedule = Schedule(seed, 3)
        where(schedule)
        with closing(schedule.world):
            schedule.run(1500)


@pytest.mark.parametrize("name", DOUBTS)
def test_every_mutant_is_found_where_it_shows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    DOUBTS[name].mutate(monkeypatch)
    with pytest.raises(Broken):
        _lives_through(DOUBTS[name].where, seeds_for(name))


@pytest.mark.parametrize("where", dict.fromkeys(doubt.where for doubt in DOUBTS.values()))
def test_what_is_sound_lives_where_such_mutants_are_found(
    where: Callable[[Schedule], None],
) -> None:
    _lives_through(where, range(1, 16))
