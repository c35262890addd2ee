"""Seeded schedules of a cluster in a world that fails; every promise holds after every event.

`MOORAGE_TEST_ROUNDS=N` runs N times as many seeds, `MOORAGE_TEST_SEED` says the first. What was
found and mended is kept in `replays/`, as the shortest schedule that showed it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sim.campaign import explore
from sim.replay import Recording, replay

FIRST = int(os.environ.get("MOORAGE_TEST_SEED", "1"))
ROUNDS = int(os.environ.get("MOORAGE_TEST_ROUNDS", "1"))
SIZES = ((2, 4000), (3, 4000), (5, 4000), (10, 4000), (30, 4000), (100, 3000))
"""Nodes and events."""
REPLAYS = sorted(Path(__file__).with_name("replays").glob("*.json"))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(FIRST, FIRST + ROUNDS * len(SIZES)))
def test_every_promise_holds(seed: int) -> None:
    nodes, events = SIZES[seed % len(SIZES)]
    found = explore(seed, nodes, events)
    assert found is None, str(found)


@pytest.mark.parametrize("path", REPLAYS, ids=lambda path: path.stem)
def test_what_failed_once_holds(path: Path) -> None:
    assert replay(Recording.load(path)) is None
