"""Fleets, draining, and jobs that may only use some nodes."""

from __future__ import annotations

from typing import Any

import pytest

from moorage.core.effects import Effect, Emit, Stir, Write
from moorage.core.explain import explain
from moorage.core.reactor import (
    on_apply_fleet,
    on_delete_fleet,
    on_drain,
    on_host,
    on_host_gone,
    on_resume,
)
from moorage.errors import InvalidInput, NotFound
from moorage.specs.fleet import Fleet, Host
from moorage.specs.instances import Instance


def fleet(*hosts: str, name: str = "lab", **fields: Any) -> Fleet:
    return Fleet(name=name, hosts=tuple(Host(hostname=host, **fields) for host in hosts))


def told(effects: list[Effect]) -> list[str]:
    return [effect.kind for effect in effects if isinstance(effect, Emit)]


def numbers(cluster) -> dict[int, tuple[str, str]]:
    return {n: (h.spec.hostname, h.state) for n, h in cluster.fleets["lab"].hosts.items()}


def connected(desk, *hosts: str) -> None:
    """A fleet whose hosts are nodes."""
    on_apply_fleet(desk.cluster, fleet(*hosts), desk.now)
    for number in range(len(hosts)):
        desk.hello(node=f"lab-{number}")


def free(desk) -> dict[str, int]:
    return {node.name: len(node.claims) for node in desk.cluster.nodes.values()}


def test_hosts_keep_their_numbers_and_new_ones_get_the_lowest_free(desk):
    effects = on_apply_fleet(desk.cluster, fleet("a", "b", "c"), desk.now)
    assert told(effects) == ["fleet.created", *["host.connecting"] * 3]
    assert Stir(again=True) in effects
    on_apply_fleet(desk.cluster, fleet("c", "d", "a"), desk.now)
    assert numbers(desk.cluster) == {
        0: ("a", "connecting"),
        1: ("b", "leaving"),
        2: ("c", "connecting"),
        3: ("d", "connecting"),
    }
    on_host_gone(desk.cluster, desk.cluster.hosts_by_node["lab-1"], desk.now)
    on_apply_fleet(desk.cluster, fleet("a", "c", "d", "e"), desk.now)
    assert numbers(desk.cluster)[1] == ("e", "connecting")


def test_a_number_whose_name_another_machine_has_is_left_out(desk):
    desk.hello(node="lab-0")
    on_apply_fleet(desk.cluster, fleet("a"), desk.now)
    assert list(desk.cluster.hosts_by_node) == ["lab-1"]


def test_a_changed_host_is_connected_again_and_an_equal_one_is_left_alone(desk):
    on_apply_fleet(desk.cluster, fleet("a", "b"), desk.now)
    for host in desk.cluster.hosts_by_node.values():
        on_host(desk.cluster, host, "ready", desk.now)
    changed = Fleet(name="lab", hosts=(Host(hostname="a"), Host(hostname="b", user="root")))
    effects = on_apply_fleet(desk.cluster, changed, desk.now)
    assert told(effects) == ["fleet.changed", "host.connecting"]
    assert numbers(desk.cluster) == {0: ("a", "ready"), 1: ("b", "connecting")}


def test_a_host_that_leaves_drains_and_comes_back_where_the_file_names_it_again(desk):
    connected(desk, "a", "b")
    effects = on_apply_fleet(desk.cluster, fleet("a"), desk.now)
    assert told(effects) == ["fleet.changed", "host.leaving", "node.draining"]
    assert desk.cluster.nodes[2].draining
    effects = on_apply_fleet(desk.cluster, fleet("a", "b"), desk.now)
    assert told(effects) == ["fleet.changed", "node.resumed", "host.connecting"]
    assert desk.cluster.nodes[2].open


def test_a_node_knows_its_fleet_and_a_gone_one_is_no_longer_there(desk):
    connected(desk, "a")
    [node] = desk.cluster.nodes.values()
    assert (node.fleet, node.hostname, node.gone) == ("lab", "a", False)
    assert told(on_delete_fleet(desk.cluster, "lab", False, desk.now)) == [
        "fleet.deleting",
        "host.leaving",
        "node.draining",
    ]
    host = desk.cluster.hosts_by_node["lab-0"]
    effects = on_host_gone(desk.cluster, host, desk.now)
    assert told(effects) == ["host.removed", "fleet.deleted"]
    revoked = Write("delete_node_tokens", {"subject": "lab-0"})
    assert revoked in effects
    assert node.gone
    assert not desk.cluster.fleets
    with pytest.raises(NotFound, match="there is no fleet lab; there is none yet"):
        on_delete_fleet(desk.cluster, "lab", False, desk.now)


def test_force_kills_what_runs_there(desk):
    connected(desk, "a")
    job = desk.started()
    on_delete_fleet(desk.cluster, "lab", True, desk.now)
    assert job.stopping
    assert desk.cluster.hosts_by_node["lab-0"].force


def test_a_draining_node_takes_nothing_new_and_tells_when_it_is_empty(desk, say):
    connected(desk, "a")
    job = desk.started(name="first")
    effects = on_drain(desk.cluster, 1)
    assert told(effects) == ["node.draining"]
    assert on_drain(desk.cluster, 1) == []
    desk.submit(name="second")
    assert "node.drained" not in told(desk.schedule())
    assert free(desk) == {"lab-0": 1}
    second = desk.job(2)
    assert explain(desk.cluster, second, desk.now) == (
        "a node: none takes new jobs (draining: lab-0)"
    )

    desk.report(say.done(job.key))
    assert told(desk.schedule()) == ["node.drained"]
    assert told(desk.schedule()) == []
    assert told(on_resume(desk.cluster, 1)) == ["node.resumed"]
    desk.schedule()
    assert free(desk) == {"lab-0": 1}


def test_jobs_go_where_they_may(desk):
    desk.hello(node="own")
    connected(desk, "a", "b")
    desk.submit(name="one", fleets=["lab"])
    desk.submit(name="two", fleets=["lab"])
    desk.submit(name="three", instances=[Instance(name="lab-1")])
    desk.submit(name="four", instances=[Instance(hostname="a")])
    desk.submit(name="five", fleets=["local"])
    desk.schedule()
    runs = {run.name: run.node for run in desk.cluster.runs.values()}
    assert runs["three"] == "lab-1"
    assert runs["four"] == "lab-0"
    assert runs["five"] == "own"
    assert {runs["one"], runs["two"]} <= {"lab-0", "lab-1"}


def test_many_jobs_with_and_without_restrictions_fill_all_nodes(desk):
    for number in range(4):
        desk.hello(node=f"own{number}")
    connected(desk, "a", "b", "c", "d")
    for number in range(16):
        desk.submit(name=f"in{number}", fleets=["lab"])
    for number in range(16):
        desk.submit(name=f"any{number}")
    desk.schedule()
    assert set(free(desk).values()) == {4}
    inside = [run.node for run in desk.cluster.runs.values() if run.name.startswith("in")]
    assert all(name.startswith("lab-") for name in inside)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"fleets": ["lb"]},
            "fleets: there is no fleet lb; did you mean lab? known: local, lab (moorage fleet ls)",
        ),
        (
            {"instances": [Instance(name="x")]},
            "instances: there is no node x; known: lab-0 (moorage node ls)",
        ),
        (
            {"instances": [Instance(hostname="x")]},
            "instances: there is no host x; known: a (moorage node ls)",
        ),
    ],
)
def test_names_of_nothing_are_refused(desk, fields, message):
    connected(desk, "a")
    with pytest.raises(InvalidInput) as caught:
        desk.submit(**fields)
    assert str(caught.value) == message


def test_a_fleet_that_is_not_connected_yet_is_waited_for(desk):
    desk.hello(node="own")
    on_apply_fleet(desk.cluster, fleet("a"), desk.now)
    desk.submit(fleets=["lab"])
    desk.schedule()
    job = desk.job()
    assert explain(desk.cluster, job, desk.now) == "a node of fleet lab: none is connected"
    desk.hello(node="lab-0")
    desk.down(2)
    assert explain(desk.cluster, job, desk.now) == (
        "a node of fleet lab: none is connected (down: lab-0)"
    )
