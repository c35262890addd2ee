"""Jobs with an image go only where containers can run."""

from __future__ import annotations

import msgspec
import pytest

from moorage.core.explain import explain, fits_ever
from moorage.core.reactor import on_apply_fleet
from moorage.errors import InvalidInput
from moorage.protocol.agent import Isolation
from moorage.specs.fleet import Fleet, Host
from moorage.specs.task import Task


def bare(desk, name: str) -> None:
    """A node that runs processes only."""
    desk.hello(node=name)
    node = next(node for node in desk.cluster.nodes.values() if node.name == name)
    node.isolation = msgspec.structs.replace(Isolation(), containers="no user namespaces")


def test_the_node_that_can_gets_it(desk):
    bare(desk, "bare")
    desk.hello(node="able")
    for number in range(3):
        desk.submit(name=f"box-{number}", image="a", commands=["x"])
    desk.submit(name="plain", commands=["x"])
    desk.schedule()
    used = {node.name: len(node.claims) for node in desk.cluster.nodes.values()}
    assert used["able"] >= 3
    assert sum(used.values()) == 4


def test_where_none_can_it_is_said_at_once(desk):
    bare(desk, "bare")
    task = Task(image="a", commands=["x"])
    assert [str(problem) for problem in fits_ever(desk.cluster, task)] == [
        "image: no node can run containers: bare: no user namespaces; remove it, or add a node "
        "that can"
    ]
    with pytest.raises(InvalidInput):
        desk.submit(image="a", commands=["x"])


def test_a_job_waits_for_one_that_can(desk):
    desk.hello(node="able")
    desk.down()
    desk.submit(name="box", image="a", commands=["x"])
    desk.schedule()
    assert explain(desk.cluster, desk.job(), desk.now) == (
        "a node that can run containers: none is connected (down: able)"
    )


def lab(desk, runtime: str) -> None:
    host = Host(hostname="a")
    on_apply_fleet(desk.cluster, Fleet(name="lab", hosts=(host,), runtime=runtime), desk.now)


@pytest.mark.parametrize(("runtime", "image"), [("container", None), ("process", "box")])
def test_a_fleet_may_take_one_kind_only(desk, runtime, image):
    other = None if image else "box"
    lab(desk, runtime)
    wrong, right = Task(commands=["true"], image=image), Task(commands=["true"], image=other)
    assert fits_ever(desk.cluster, wrong) == []  # no host of it is known, and others may come
    desk.hello(node="lab-0")
    kind = "can run containers" if image else "runs jobs without an image"
    fix = "remove it, or add a node that can" if image else "name one, or another fleet"
    told = f"image: no node {kind}: fleet lab: runtime: {runtime}; {fix}"
    assert [str(problem) for problem in fits_ever(desk.cluster, wrong)] == [told]
    assert fits_ever(desk.cluster, right) == []
    with pytest.raises(InvalidInput):
        desk.submit(wrong)
    desk.submit(right)
    desk.schedule()
    assert [len(node.claims) for node in desk.cluster.nodes.values()] == [1]


def test_a_changed_fleet_takes_the_other_kind(desk):
    lab(desk, "any")
    desk.hello(node="lab-0")
    desk.down()
    desk.submit(Task(commands=["true"]))
    lab(desk, "container")
    desk.hello(node="lab-0")
    desk.schedule()
    assert not desk.cluster.nodes[1].claims
    lab(desk, "any")
    desk.schedule()
    assert desk.cluster.nodes[1].claims
