"""Nodes that go away, on hosts of their own: each is found within its lease, its jobs do what
their task says, and two attempts of a job are never at work at the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from system.loss_harness import FAULTS, LEASE, SLACK, WAKES, Lab, lab_of
from testbed.shape import Shape

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_of([Shape()] * 2, tmp_path_factory.mktemp("loss")) as lab:
        yield lab


@pytest.mark.parametrize("fault", FAULTS)
def test_a_node_that_goes_away_is_found_and_nothing_is_doubled(lab: Lab, fault: str) -> None:
    strike, mend = FAULTS[fault]
    again = lab.begin(f"again-{fault}", "restart", ["lab-0", "lab-1"])
    (first,) = lab.view(again).jobs[0].attempts
    node, other = first.node, "lab-1" if first.node == "lab-0" else "lab-0"
    stays = lab.begin(f"stays-{fault}", None, [node])
    fails = lab.begin(f"fails-{fault}", "lost", [node])
    since, began = lab.newest(), time.time()
    strike(lab.bed, lab.hosts[node])
    try:
        lab.follow(lambda: lab.view(fails).summary.state == "failed")
        lab.follow(lambda: len(lab.view(again).jobs[0].attempts) == 2)
        lab.works(again, 2)
        told = lab.events(since, node)
        away = lab.view(stays)
        assert lab.state(node) == "lost"
        assert node in away.jobs[0].waits_for
    finally:
        woken = time.time()
        mend(lab.bed, lab.hosts[node])
    lab.follow(lambda: lab.state(node) == "up")
    back = time.time()
    assert told["node.down"] - began < LEASE + SLACK
    assert LEASE * 0.8 < told["node.lost"] - began < LEASE * 1.5 + SLACK
    lab.follow(lambda: lab.view(again).jobs[0].attempts[0].state == "done")
    work = lab.work(f"again-{fault}")
    assert set(work) == {(node, 1), (other, 2)}
    last, following = work[node, 1], work[other, 2][0]
    if fault == "frozen":
        late = [at for at in last if at >= woken]
        print(f"{fault}: at work for {late[-1] - woken if late else 0:.3f} s after it woke")
        assert not late or late[-1] < woken + WAKES, "its keeper did not end it"
        last = [at for at in last if at < woken]
    assert last[-1] < following, (last[-1], following, "two attempts at work at once")
    _the_rest(lab, fault, node, stays, fails)
    print(f"{fault}: down {told['node.down'] - began:.1f} s, lost {told['node.lost'] - began:.1f}")
    print(f"  last work {last[-1] - began:.1f}, next {following - began:.1f}, back")
    print(f"  {back - began:.1f}")
    lab.stop(again, stays)
    left = lab.hosts[node].inside("pgrep", "-f", f"root/[a-z]*-{fault}", check=False)
    assert left.stdout == "", left


def _the_rest(lab: Lab, fault: str, node: str, stays: int, fails: int) -> None:
    """What waited has run on, but for a machine that was rebooted; what failed is over."""
    assert lab.view(fails).summary.reason == "lost"
    assert set(lab.work(f"fails-{fault}")) == {(node, 1)}
    if fault == "killed":
        lab.follow(lambda: lab.view(stays).summary.state == "failed")
        assert lab.view(stays).summary.reason == "lost"
    else:
        assert lab.view(stays).summary.state == "running"
    assert set(lab.work(f"stays-{fault}")) == {(node, 1)}
