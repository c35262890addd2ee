"""One living world for all tests of a module; each test leaves it as it found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from system.crash.world import World, living_world


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with living_world() as world:
        yield world
