"""The fence: the keeper's own clock, its own timer, and nobody who could help it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from moorage.agent.keeper.fence import Fence, now
from moorage.agent.keeper.loop import Loop

PATIENCE = 60.0


class Bell:
    """Counts how often the fence fell, and ends the loop when it does."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.falls = loop, list[float]()

    def __call__(self) -> None:
        self.falls.append(now())
        self.loop.stop()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def fence(loop: Loop) -> Iterator[tuple[Fence, Bell]]:
    bell = Bell(loop)
    fence = Fence(loop, bell)
    yield fence, bell
    os.close(fence._fd)


def test_it_rings_when_the_lease_ends_and_not_before(
    loop: Loop, fence: tuple[Fence, Bell]
) -> None:
    own, bell = fence
    until = now() + 1.5
    own.renew(until)
    assert own.check()
    loop.later(PATIENCE, loop.stop)
    loop.run()
    assert len(bell.falls) == 1
    assert bell.falls[0] >= until
    assert not own.check()
    assert len(bell.falls) == 1, "once"


def test_a_renewal_moves_the_end(loop: Loop, fence: tuple[Fence, Bell]) -> None:
    own, bell = fence
    own.renew(now() + 1.5)
    later = now() + 1.8
    own.renew(later)
    loop.later(PATIENCE, loop.stop)
    loop.run()
    assert len(bell.falls) == 1
    assert bell.falls[0] >= later


def test_there_is_no_lease_before_the_first(fence: tuple[Fence, Bell]) -> None:
    own, bell = fence
    assert not own.check()
    assert not bell.falls


def test_a_lease_that_ended_is_over_also_where_it_is_renewed_before_the_timer_was_read(
    fence: tuple[Fence, Bell],
) -> None:
    own, bell = fence
    own.renew(now() - 1)
    own.renew(now() + 1000)
    assert len(bell.falls) == 1
    assert own.check()
