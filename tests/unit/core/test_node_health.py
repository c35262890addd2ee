"""Nodes that say how well they are."""

from __future__ import annotations

from moorage.core.effects import Emit, Send
from moorage.core.explain import broken_gpus, explain
from moorage.core.reactor import on_apply_fleet, on_health
from moorage.protocol.agent import GpuDevice, Held, Outcome
from moorage.protocol.health import CheckHealth, GpuHealth, Health
from moorage.specs import fleet as specs
from moorage.specs.resources import Gpu, Resources

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


BROKEN = Health("warning", "GPU 1: gone", [GpuHealth(1, "failure", "gone")])


def test_a_broken_gpu_is_out_alone_and_its_job_is_told(desk):
    desk.hello(gpus=[GpuDevice(n, "nvidia", "H100", 80 << 30) for n in range(2)])
    node = desk.cluster.nodes[1]
    for _ in range(3):
        desk.submit(resources=Resources(gpu=Gpu()))
    desk.schedule()
    assert [claim.gpus for claim in node.claims.values()] == [(0,), (1,)]
    on_health(desk.cluster, 1, BROKEN)
    assert node.open
    assert broken_gpus(desk.cluster, desk.job(1)) == ""
    assert broken_gpus(desk.cluster, desk.job(2)) == "GPU 1 of node box: gone"
    assert broken_gpus(desk.cluster, desk.job(3)) == ""
    desk.cancel(2, abort=True)
    desk.report(stopped(desk.job(2).key))
    desk.schedule()
    assert list(node.claims) == [1]
    assert "0 of 2 GPUs free, 1 broken" in explain(desk.cluster, desk.job(3), desk.now)
    on_health(desk.cluster, 1, Health())
    desk.schedule()
    assert node.claims[3].gpus == (1,)


def test_no_node_is_kept_for_ranks_that_its_broken_gpu_keeps_away(desk):
    for name in ("a", "b"):
        desk.hello(node=name, gpus=[GpuDevice(1, "nvidia", "H100", 80 << 30)])
    on_health(desk.cluster, 2, BROKEN)
    desk.submit(nodes=2, resources=Resources(gpu=Gpu()))
    desk.schedule()
    assert desk.cluster.hold is None
    on_health(desk.cluster, 2, Health())
    desk.schedule()
    assert desk.cluster.nodes[2].claims


def stopped(key: str) -> Held:
    return Held(key, "done", outcome=Outcome("stopped"))


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
