"""A node that comes and goes all the time fills no feed."""

from __future__ import annotations

from typing import Any

from moorage.core.effects import Arm, Emit, Timer
from moorage.core.reactor.flaps import CHANGES, WITHIN


def kinds(effects: list[Any]) -> list[str]:
    return [effect.kind for effect in effects if isinstance(effect, Emit)]


def flap(desk: Any, times: int, apart: float = 1.0) -> list[str]:
    """It goes and comes, so often."""
    told: list[str] = []
    for _ in range(times):
        desk.now += apart
        told += kinds(desk.down())
        desk.now += apart
        told += kinds(desk.hello())
    return told


def test_it_is_told_once_and_again_when_it_has_settled(desk):
    desk.hello()
    told = flap(desk, 50)
    assert told[:CHANGES] == ["node.down", "node.up"] * (CHANGES // 2)
    assert told[CHANGES:] == ["node.flapping"]
    (timer, last) = Timer("settle", 1), desk.now
    desk.now += WITHIN - 1
    assert desk.ring("settle", 1) == [Arm(timer, last + WITHIN)]
    desk.now += 1
    (settled,) = desk.ring("settle", 1)
    assert (settled.kind, settled.node, settled.data) == ("node.settled", 1, {"state": "up"})
    assert desk.ring("settle", 1) == []
    assert flap(desk, 1) == ["node.down", "node.up"]


def test_one_that_stays_away_has_settled_too(desk):
    desk.hello()
    flap(desk, 20)
    desk.down()
    desk.now += WITHIN
    (settled,) = desk.ring("settle", 1)
    assert settled.data == {"state": "down"}


def test_a_reboot_is_told_nevertheless(desk):
    desk.hello()
    flap(desk, 20)
    desk.down()
    assert kinds(desk.hello(boot="boot-2")) == ["node.up"]


def test_what_is_seldom_is_told_each_time(desk):
    desk.hello()
    assert flap(desk, 100, apart=WITHIN / CHANGES + 1) == ["node.down", "node.up"] * 100


def test_another_node_is_not_concerned(desk):
    desk.hello()
    desk.hello(node="other")
    flap(desk, 20)
    assert kinds(desk.down(2)) == ["node.down"]


def test_a_timer_of_a_node_that_is_quiet_changes_nothing(desk):
    desk.hello()
    assert desk.ring("settle", 1) == desk.ring("settle", 7) == []
