"""Nodes that say how well they are."""

from __future__ import annotations

from moorage.core.effects import Emit, Send
from moorage.core.explain import explain
from moorage.core.reactor import on_apply_fleet, on_health
from moorage.protocol.agent import GpuDevice
from moorage.protocol.health import CheckHealth, GpuHealth, Health
from moorage.specs import fleet as specs

CHECK = specs.Health("test -e /data", 60.0, 5.0)
FULL = Health("failure", "disk full")


def fleet(health: specs.Health | None) -> specs.Fleet:
    return specs.Fleet(name="lab", hosts=(specs.Host(hostname="a"),), health=health)


def asked(effects) -> list[CheckHealth]:
    sent = [effect.message for effect in effects if isinstance(effect, Send)]
    return [message for message in sent if isinstance(message, CheckHealth)]


def test_a_failure_keeps_jobs_away_until_it_is_well(desk):
    desk.hello()
    [told, *_] = on_health(desk.cluster, 1, FULL)
    assert told == Emit("node.health", node=1, data={"state": "failure", "reason": "disk full"})
    assert on_health(desk.cluster, 1, FULL) == []
    desk.submit(name="first")
    desk.schedule()
    assert not desk.cluster.nodes[1].claims
    assert "box: disk full" in explain(desk.cluster, desk.job(), desk.now)
    on_health(desk.cluster, 1, Health())
    desk.schedule()
    assert desk.cluster.nodes[1].claims


def test_a_warning_keeps_nobody_away(desk):
    desk.hello()
    on_health(desk.cluster, 1, Health("warning", "GPU 0: hot", [GpuHealth(0, "warning", "hot")]))
    assert desk.cluster.nodes[1].open
    assert desk.cluster.nodes[1].condition.reason == "GPU 0: hot"


def test_jobs_in_line_there_are_asked_back_and_those_that_run_stay(desk):
    desk.hello(cpus=1)
    desk.started(name="first")
    node = desk.cluster.nodes[1]
    node.learn(desk.job().shape, 0.1)
    desk.submit(name="second")
    desk.schedule()
    assert sum(map(len, node.lines.values())) == 1
    effects = on_health(desk.cluster, 1, FULL)
    retracted = [effect for effect in effects if isinstance(effect, Send)]
    assert [type(effect.message).__name__ for effect in retracted] == ["Retract"]
    assert len(node.claims) == 1


def test_nodes_are_told_what_their_fleet_wants_looked_at(desk):
    assert asked(desk.hello(node="own")) == []
    gpu = GpuDevice(0, "nvidia", "H100", 80 << 30)
    assert asked(desk.hello(node="own", gpus=[gpu])) == [CheckHealth()]
    assert asked(on_apply_fleet(desk.cluster, fleet(CHECK), desk.now)) == []
    wanted = CheckHealth("test -e /data", 60.0, 5.0)
    assert asked(desk.hello(node="lab-0")) == [wanted]
    assert asked(on_apply_fleet(desk.cluster, fleet(None), desk.now)) == [CheckHealth()]
    desk.down(2)
    assert asked(on_apply_fleet(desk.cluster, fleet(CHECK), desk.now)) == []
