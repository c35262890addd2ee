"""When the server takes nodes for gone and for lost, by a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from moorage.engine.leases import FLAPS, Leases
from moorage.ids import NodeId

LENGTH = 12.0
PAUSE = LENGTH / 12
NODE, OTHER = NodeId(1), NodeId(2)


class Desk:
    """Looks are made by hand, as often as the timer makes them."""

    def __init__(self, length: float = LENGTH) -> None:
        self.now = 1000.0
        self.quiet: list[tuple[int, float]] = []
        self.lost: list[tuple[int, float]] = []
        self.leases = Leases(length, self._quiet, self._lost, lambda: self.now)

    def _quiet(self, node: NodeId, silent: float) -> None:
        self.quiet.append((node, round(silent, 1)))
        self.leases.gone(node)

    def _lost(self, node: NodeId, silent: float) -> None:
        self.lost.append((node, round(silent, 1)))

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / PAUSE)):
            self.now += PAUSE
            self._look()

    def sleep(self, seconds: float) -> None:
        """This process stands still, and looks once after it."""
        self.now += seconds
        self._look()

    def _look(self) -> None:
        self.leases.close()
        self.leases._look()


def desk(test: Callable[[Desk], None], earlier: float = 0.0) -> None:
    """With two nodes that were known before."""

    async def inside() -> None:
        found = Desk()
        found.leases.begin([NODE, OTHER], earlier)
        try:
            test(found)
        finally:
            found.leases.close()

    asyncio.run(inside())


def test_who_says_nothing_is_gone_after_half_and_lost_after_all_of_it() -> None:
    def test(desk: Desk) -> None:
        desk.leases.greeted(NODE)
        desk.leases.heard(NODE)
        desk.wait(6)
        assert not desk.quiet
        desk.wait(1)
        assert desk.quiet == [(NODE, 7.0)]
        desk.wait(5)
        assert not [one for one in desk.lost if one[0] == NODE]
        desk.wait(1)
        assert (NODE, 13.0) in desk.lost
        desk.wait(30)
        assert len(desk.lost) == 2, "each once"

    desk(test)


def test_a_sign_of_life_counts_anew() -> None:
    def test(desk: Desk) -> None:
        desk.leases.greeted(NODE)
        for _ in range(10):
            desk.wait(5)
            desk.leases.heard(NODE)
        assert not desk.quiet
        assert desk.leases.away(NODE) == 0
        assert [node for node, _ in desk.lost] == [OTHER]

    desk(test)


def test_who_begins_waits_for_the_longest_lease_that_was_ever_given() -> None:
    def test(desk: Desk) -> None:
        desk.wait(60)
        assert not desk.lost
        desk.wait(1)
        assert sorted(desk.lost) == [(NODE, 61.0), (OTHER, 61.0)]

    desk(test, earlier=60.0)


def test_a_longer_lease_is_forgotten_when_all_of_it_is_over() -> None:
    def test(desk: Desk) -> None:
        told: list[float] = []
        desk.leases.outlived = lambda: told.append(desk.now)
        desk.leases.greeted(NODE)
        desk.wait(60)
        assert not told
        desk.wait(100)
        assert told == [1061.0], "once"
        desk.leases.greeted(NODE)
        desk.leases.gone(NODE)
        desk.wait(13)
        assert desk.lost[-1] == (NODE, 13.0), "whoever comes now never had a longer one"

    desk(test, earlier=60.0)


def test_a_longer_lease_holds_until_the_node_has_beaten_under_the_present_one() -> None:
    def test(desk: Desk) -> None:
        for node in (NODE, OTHER):
            desk.leases.greeted(node)
        desk.leases.heard(OTHER)
        for node in (NODE, OTHER):
            desk.leases.gone(node)
        desk.wait(13)
        assert desk.lost == [(OTHER, 13.0)]
        desk.wait(47)
        assert len(desk.lost) == 1
        desk.wait(1)
        assert desk.lost[1] == (NODE, 61.0)

    desk(test, earlier=60.0)


def test_a_server_that_stood_still_gives_all_the_time_to_be_heard() -> None:
    def test(desk: Desk) -> None:
        desk.leases.greeted(NODE)
        desk.leases.heard(NODE)
        desk.sleep(600)
        assert not desk.quiet
        assert not desk.lost
        desk.wait(13)
        assert desk.quiet == [(NODE, 7.0)]
        assert sorted(desk.lost) == [(NODE, 13.0), (OTHER, 13.0)]

    desk(test)


def test_a_connected_node_is_never_lost_before_its_connection_is() -> None:
    def test(desk: Desk) -> None:
        desk.leases.greeted(NODE)
        desk.leases.heard(NODE)
        desk.leases._quiet = lambda *_: None  # closing takes its time
        desk.wait(30)
        assert [node for node, _ in desk.lost] == [OTHER]

    desk(test)


def test_of_whom_nothing_was_ever_heard_nothing_is_known() -> None:
    def test(desk: Desk) -> None:
        assert desk.leases.away(NodeId(77)) is None
        desk.wait(3)
        assert desk.leases.away(NODE) == 3

    desk(test)


def test_who_connects_again_and_again_flaps_until_a_minute_is_over() -> None:
    def test(desk: Desk) -> None:
        for _ in range(FLAPS):
            desk.leases.greeted(NODE)
        assert not desk.leases.flapping(NODE)
        desk.leases.greeted(NODE)
        assert desk.leases.flapping(NODE)
        assert not desk.leases.flapping(OTHER)
        desk.now += 60
        assert not desk.leases.flapping(NODE)

    desk(test)


def test_its_timer_looks_by_itself() -> None:
    async def inside() -> None:
        lost = asyncio.Event()
        # A look that is late by a twelfth of it would count as standing still.
        leases = Leases(1.2, lambda *_: None, lambda *_: lost.set())
        leases.begin([NODE], 0.0)
        async with asyncio.timeout(60):
            await lost.wait()
        leases.close()

    asyncio.run(inside())
