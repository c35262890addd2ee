"""Nodes that go away, on hosts of their own: each is found within its lease, its jobs do what
their task says, and two attempts of a job are never at work at the same time. And hosts that stay
but are in trouble: no disk, no memory, a bad link; jobs go on or say why not, and it recovers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from moorage.protocol.api import RunView
from moorage.specs.instances import Instance
from moorage.specs.task import Task
from system.loss_harness import (
    EATER,
    FAULTS,
    LEASE,
    SLACK,
    TROUBLES,
    WAKES,
    Lab,
    empty,
    fill,
    lab_of,
)
from testbed.shape import Shape

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

ROUNDS = int(os.environ.get("MOORAGE_TEST_ROUNDS", "1")) - 1
"""More than usual."""
NODE = "lab-0"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    small = Shape(disk=320 << 20, memory=768 << 20)
    with lab_of([small, Shape()], tmp_path_factory.mktemp("loss")) as lab:
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
    # Its last sign of life came some time before.
    assert LEASE / 2 < told["node.lost"] - began < LEASE * 1.5 + SLACK
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
    deadline = time.monotonic() + 60
    while lab.hosts[node].inside("pgrep", "-f", f"root/[a-z]*-{fault}", check=False).stdout:
        assert time.monotonic() < deadline, "what was given up still runs"


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


def ended(lab: Lab, *commands: str) -> RunView:
    """A job of these commands on the host, which is over."""
    with lab.client as client:
        task = Task(commands=list(commands), instances=[Instance(name=NODE)])
        (run,) = client.submit(task)
        client.wait(run.id, 60)
    return lab.view(run.id)


def test_a_full_disk_is_told_and_room_makes_it_well(lab: Lab) -> None:
    stays = lab.begin("full", None, [NODE])
    since = lab.newest()
    fill(lab.bed, lab.hosts[NODE])
    try:
        refused = ended(lab, "echo hello")
        assert refused.summary.state == "failed"
        assert "disk is full" in refused.jobs[0].message, refused.jobs[0]
        with lab.client as client:
            assert next(iter(client.logs(stays))), "what it had said is there"
        assert lab.view(stays).summary.state == "running"
    finally:
        empty(lab.bed, lab.hosts[NODE])
    assert ended(lab, "echo hello").summary.state == "succeeded"
    assert lab.view(stays).summary.state == "running"
    assert not {"node.down", "node.lost"} & set(lab.events(since, NODE))
    lab.stop(stays)
    assert lab.left(NODE) == []


def test_a_job_that_takes_all_memory_ends_alone(lab: Lab) -> None:
    stays = lab.begin("memory", None, [NODE])
    since = lab.newest()
    eater = ended(lab, f'python3 -S -c "{EATER}"')
    assert (eater.summary.state, eater.summary.reason) == ("failed", "out-of-memory"), eater
    TROUBLES["memory"][0](lab.bed, lab.hosts[NODE])
    assert ended(lab, "echo hello").summary.state == "succeeded"
    assert not {"node.lost"} & set(lab.events(since, NODE))
    lab.stop(stays)
    assert lab.left(NODE) == []


def test_agent_and_keeper_that_end_at_once_leave_nothing_and_double_nothing(lab: Lab) -> None:
    again = lab.begin("agent", "restart", [NODE])
    TROUBLES["agent"][0](lab.bed, lab.hosts[NODE])
    lab.follow(lambda: lab.attempts(again)[-1].attempt == 2)
    lab.works(again, 2)
    assert lab.doubled("agent") == []
    lab.stop(again)
    assert lab.left(NODE) == []


@pytest.mark.parametrize("troubles", [("lossy", "slow")] + [("lossy",), ("slow",)] * ROUNDS)
def test_a_bad_link_loses_no_node_and_doubles_nothing(lab: Lab, troubles: tuple[str, ...]) -> None:
    name = f"link-{lab.newest()}"
    again = lab.begin(name, "restart", [*lab.hosts])
    node = lab.attempts(again)[0].node
    since = lab.newest()
    for trouble in troubles:
        TROUBLES[trouble][0](lab.bed, lab.hosts[node])
    try:
        with lab.client as client:  # what comes through such a link is late, and is there
            task = Task(commands=["sleep 2", "echo hello"], instances=[Instance(name=node)])
            (run,) = client.submit(task)
            client.wait(run.id, 60)
            assert lab.view(run.id).summary.state == "succeeded"
    finally:
        for trouble in troubles:
            TROUBLES[trouble][1](lab.bed, lab.hosts[node])
    with lab.client as client:
        downs = [one for one in client.events(since=since) if one.kind == "node.down"]
    assert len(downs) <= 3, downs
    assert lab.doubled(name) == []
    lab.stop(again)
    assert lab.left(node) == []


@pytest.mark.skipif(not ROUNDS, reason="long: it is another way to be killed")
def test_a_host_that_reboots_is_back_at_once(lab: Lab) -> None:
    again = lab.begin("booted", "restart", [NODE])
    TROUBLES["rebooted"][0](lab.bed, lab.hosts[NODE])
    lab.follow(lambda: lab.attempts(again)[-1].attempt == 2)
    lab.works(again, 2)
    assert lab.doubled("booted") == []
    lab.stop(again)
    assert lab.left(NODE) == []
