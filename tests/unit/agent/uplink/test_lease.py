"""The lease as the agent counts it, by a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from moorage.agent.uplink.lease import PART, Lease

LENGTH = 30.0


class Desk:
    """A lease, its clock, and what it said."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ends: list[float] = []
        self.overs = 0
        self.lease = Lease(self.ends.append, self._over, lambda: self.now)

    def _over(self) -> None:
        self.overs += 1


async def _greeted(took: float = 0.0) -> Desk:
    desk = Desk()
    desk.lease.greet()
    desk.now += took
    desk.lease.welcome(LENGTH)
    return desk


def run(test: Callable[[Desk], None], took: float = 0.0) -> None:
    """With a lease whose greeting took so many seconds."""

    async def inside() -> None:
        desk = await _greeted(took)
        try:
            test(desk)
        finally:
            desk.lease.close()

    asyncio.run(inside())


def test_there_is_none_before_the_first_welcome() -> None:
    desk = Desk()
    assert not desk.lease.valid()
    assert desk.overs == 0, "nothing was promised, so nothing ends"


def test_it_counts_from_when_the_greeting_was_sent() -> None:
    def test(desk: Desk) -> None:
        assert desk.ends == [1000 + LENGTH * PART]
        desk.now = 1000 + LENGTH * PART - 0.01
        assert desk.lease.valid()
        desk.now += 0.02
        assert not desk.lease.valid()

    run(test, took=10.0)


def test_a_beat_counts_from_when_it_was_sent_not_from_its_answer() -> None:
    def test(desk: Desk) -> None:
        desk.now = 1005.0
        beat = desk.lease.beat()
        desk.now = 1012.0
        desk.lease.answered(beat.number)
        assert desk.ends[-1] == 1005 + LENGTH * PART

    run(test)


def test_an_answer_covers_earlier_beats_and_counts_once() -> None:
    def test(desk: Desk) -> None:
        first, second = desk.lease.beat(), desk.lease.beat()
        desk.lease.answered(second.number)
        told = list(desk.ends)
        desk.now += 5
        desk.lease.answered(first.number)
        desk.lease.answered(second.number)
        desk.lease.answered(999)
        assert desk.ends == told

    run(test)


def test_an_answer_of_an_earlier_connection_is_none() -> None:
    def test(desk: Desk) -> None:
        desk.now += 5
        old = desk.lease.beat()
        desk.now += 5
        desk.lease.greet()
        desk.lease.answered(old.number)
        assert desk.ends == [1000 + LENGTH * PART]

    run(test)


def test_its_end_is_told_once_also_where_contact_is_back_first() -> None:
    def test(desk: Desk) -> None:
        desk.now = 1019.0
        beat = desk.lease.beat()
        desk.now = 1021.0
        desk.lease.answered(beat.number)
        assert desk.overs == 1, "what was fenced is over, though the lease begins anew"
        assert desk.ends[-1] == 1019 + LENGTH * PART
        assert desk.lease.valid()
        desk.now = 1100.0
        assert not desk.lease.valid()
        assert not desk.lease.valid()
        assert desk.overs == 2

    run(test)


def test_an_answer_older_than_the_lease_renews_nothing() -> None:
    def test(desk: Desk) -> None:
        beat = desk.lease.beat()
        desk.now += LENGTH
        desk.lease.answered(beat.number)
        assert len(desk.ends) == 1
        assert not desk.lease.valid()
        assert desk.overs == 1

    run(test)


@pytest.mark.parametrize(("seconds", "silent"), [(LENGTH / 2 - 0.1, False), (15.1, True)])
def test_silence_is_half_a_lease_without_an_answer(seconds: float, silent: bool) -> None:
    def test(desk: Desk) -> None:
        desk.now += seconds
        assert desk.lease.silent is silent
        assert desk.lease.interval == LENGTH / 6

    run(test)


def test_its_timer_rings_by_itself() -> None:
    async def inside() -> None:
        over = asyncio.Event()
        lease = Lease(lambda _: None, over.set)
        lease.greet()
        lease.welcome(3.0)
        assert lease.valid()
        async with asyncio.timeout(30):
            await over.wait()
        assert not lease.valid()
        lease.close()

    asyncio.run(inside())
