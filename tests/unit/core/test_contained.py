"""Jobs with an image go only where containers can run."""

from __future__ import annotations

import msgspec
import pytest

from moorage.core.effects import Effect
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


def lab(desk, runtime: str) -> list[Effect]:
    fleet = Fleet(name="lab", hosts=(Host(hostname="a"),), runtime=runtime)
    return on_apply_fleet(desk.cluster, fleet, desk.now)


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


@pytest.fixture
def line(desk):
    """A node of the fleet with one place: run 1 has it, and two stand in line for it."""
    lab(desk, "any")
    desk.hello(node="lab-0", cpus=1)
    desk.started(name="first")
    desk.cluster.nodes[1].learn(desk.job().shape, 0.1)
    desk.submit(name="second")
    desk.submit(name="third")
    desk.schedule()
    assert sum(map(len, desk.cluster.nodes[1].lines.values())) == 2
    return desk


def test_who_is_in_line_for_what_a_fleet_no_longer_runs_is_asked_back(line, say):
    assert [text for text in say.brief(lab(line, "process")) if "-> 1 retract" in text] == []
    assert [text for text in say.brief(lab(line, "container")) if "-> 1 retract" in text] == [
        "-> 1 retract 2.1.0 3.1.0"
    ]
    assert [text for text in say.brief(lab(line, "container")) if "-> 1 retract" in text] == []
    line.report(say.retracted("2.1.0"), say.retracted("3.1.0"))
    line.schedule()
    assert not line.cluster.nodes[1].lines
    assert line.cluster.nodes[1].claims.keys() == {1}, "what runs goes on"
    line.report(say.done("1.1.0"))
    line.schedule()
    assert not line.cluster.nodes[1].claims


def test_a_server_that_forgot_that_it_asked_asks_when_the_node_is_back(line, say):
    """One that started since: all that it knows is who stands in line, and what the fleet runs."""
    line.down()
    line.cluster.fleets["lab"].spec = Fleet(
        name="lab", hosts=(Host(hostname="a"),), runtime="container"
    )
    held = [say.running("1.1.0"), say.in_line("2.1.0")]
    told = say.brief(line.hello(*held, node="lab-0", cpus=1))
    assert [text for text in told if "-> 1 retract" in text] == ["-> 1 retract 2.1.0"]
    assert "update_job 3 queued" in told, "of which the node has never heard"
