"""The judge is judged: what is broken on purpose is found soon, and told in a few steps."""

from __future__ import annotations

import pytest

from sim.campaign import explore
from sim.mutants import MUTANTS
from sim.replay import replay

SEEDS = range(1, 13)
EVENTS = 3000
STEPS = 20


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        MUTANTS[name](patch)
        found = next(filter(None, (explore(seed, 3, EVENTS) for seed in SEEDS)), None)
        assert found is not None, f"{name}: not found in {len(SEEDS)} x {EVENTS} events"
        assert len(found.recording.steps) <= STEPS, str(found)
    assert replay(found.recording) is None, "the sound one fails too"
