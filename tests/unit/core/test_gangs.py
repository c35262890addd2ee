"""Jobs with several ranks: where they go, what one rank means for the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from moorage.core import gang
from moorage.core.effects import Send
from moorage.core.explain import explain
from moorage.core.job import (
    Cancelled,
    Failed,
    Job,
    Live,
    Queued,
    Running,
    Starting,
    Succeeded,
    ranks_of,
)
from moorage.core.reactor import on_cancel, on_report
from moorage.core.reactor.ranks import start
from moorage.errors import InvalidInput
from moorage.ids import NodeId, RunId
from moorage.protocol.agent import GpuDevice, Held, Isolation, Outcome, Phase, Report, Start, Stop
from moorage.specs.gang import NodeGroup
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.retry import Retry

OK = Outcome("exited", exit_code=0)


def cpus(number: float) -> Resources:
    return Resources(cpu=Cpu(Range(number, number)))


def starts(effects: Sequence[Any]) -> list[int]:
    """Ranks that are told to begin."""
    sends = [effect.message for effect in effects if isinstance(effect, Send)]
    return [message.launch.rank for message in sends if isinstance(message, Start)]


def stops(effects: Sequence[Any]) -> list[str]:
    sends = [effect.message for effect in effects if isinstance(effect, Send)]
    return [message.key for message in sends if isinstance(message, Stop)]


class Ranks:
    """Reports about the ranks of one job."""

    def __init__(self, desk: Any, job: Job) -> None:
        self.desk, self.job = desk, job

    def report(
        self, rank: int, state: Any, outcome: Outcome | None = None, *, ran: bool = True
    ) -> Any:
        assert isinstance(self.job.state, Live)
        node = ranks_of(self.job.state)[rank].node
        phases = [Phase("claim", 1.0, 2.0)]
        if ran and state != "staging":
            phases.append(Phase("run", 5.0, None if state == "running" else 9.0))
        if state == "done":
            phases.append(Phase("clean", 9.0, 9.5))
        held = Held(self.job.rank_key(rank), state, phases, outcome)
        self.desk.seq += 1
        return on_report(self.desk.cluster, node, Report(self.desk.seq, [held]), self.desk.now)


@pytest.fixture
def three(desk: Any) -> Any:
    for name in ("a", "b", "c"):
        desk.hello(node=name)
    return desk


def begun(desk: Any, **fields: Any) -> Ranks:
    desk.submit(**{"nodes": 3, **fields})
    job = list(desk.cluster.jobs.values())[-1]
    desk.schedule()
    return Ranks(desk, job)


def test_a_rank_on_each_node_in_one_decision(three: Any) -> None:
    three.submit(nodes=3)
    assert starts(three.schedule()) == [0, 1, 2]
    (job,) = three.cluster.jobs.values()
    assert [rank.node for rank in ranks_of(job.state)] == [1, 2, 3]


def test_it_says_how_many_ranks_run(three: Any) -> None:
    found = begun(three)
    for rank, told in enumerate(("0/3", "1/3", "2/3")):
        text = explain(three.cluster, found.job, three.now)
        assert text == f"all of its ranks to start: {told} ranks run"
        found.report(rank, "running")
    assert explain(three.cluster, found.job, three.now) == ""


def test_ranks_are_told_how_to_reach_each_other_the_same_each_time(three: Any) -> None:
    three.cluster.secret = b"s" * 32
    three.cluster.nodes[2].isolation = Isolation(user="bob", ssh="no sshd")
    three.submit(nodes=3)
    launches = [effect.message.launch for effect in three.schedule() if isinstance(effect, Send)]
    first = launches[0].peers
    assert [(peer.name, peer.user, peer.problem) for peer in first.ranks] == [
        ("a", "ann", ""),
        ("b", "bob", "no sshd"),
        ("c", "ann", ""),
    ]
    assert len({peer.port for peer in first.ranks}) == 3
    assert len({launch.peers.host_key for launch in launches}) == 3
    assert all(launch.peers.ranks == first.ranks for launch in launches)
    assert all(launch.peers.key == first.key for launch in launches)
    assert "PRIVATE" not in repr(launches)
    (job,) = three.cluster.jobs.values()
    assert start(three.cluster, job, 2).message.launch == launches[2]


def test_a_job_with_one_rank_is_told_nothing_of_that(three: Any) -> None:
    three.cluster.secret = b"s" * 32
    three.submit()
    assert three.schedule()[-1].message.launch.peers is None


def test_all_or_none(three: Any) -> None:
    three.submit(resources=cpus(4))
    three.schedule()
    three.submit(nodes=3, resources=cpus(2))
    assert not starts(three.schedule())
    assert isinstance(three.cluster.jobs[2].state, Queued)
    assert sum(len(node.claims) for node in three.cluster.nodes.values()) == 1


def test_never_over_several_fleets(three: Any) -> None:
    three.cluster.nodes[3].fleet = "far"
    three.submit(nodes=2)
    three.schedule()
    with pytest.raises(InvalidInput, match="needs 3 nodes of one fleet, only 2 can run"):
        three.submit(nodes=3)


def test_more_than_there_are_is_refused(three: Any) -> None:
    with pytest.raises(InvalidInput, match="too few nodes"):
        three.submit(nodes=4)
    assert not three.cluster.runs


def test_the_state_is_what_all_ranks_have_reached(three: Any) -> None:
    ranks = begun(three)
    for rank in range(3):
        assert isinstance(ranks.job.state, Starting)
        ranks.report(rank, "running")
    assert isinstance(ranks.job.state, Running)
    ranks.report(0, "done", OK)
    ranks.report(1, "finishing", OK)
    assert isinstance(ranks.job.state, Running)
    ranks.report(1, "done", OK)
    ranks.report(2, "finishing", OK)
    assert ranks.job.state.name == "finishing"
    assert sum(len(node.claims) for node in three.cluster.nodes.values()) == 3
    ranks.report(2, "done", OK)
    assert isinstance(ranks.job.state, Succeeded)
    assert not any(node.claims for node in three.cluster.nodes.values())


def test_the_first_that_fails_ends_the_others_at_once(three: Any) -> None:
    ranks = begun(three)
    for rank in range(3):
        ranks.report(rank, "running")
    assert stops(ranks.report(1, "finishing", Outcome("exited", exit_code=3))) == [
        "1.1.0",
        "1.1.2",
    ]
    stopped = Outcome("stopped", signal=15)
    assert not stops(ranks.report(0, "finishing", Outcome("exited", exit_code=1)))
    ranks.report(1, "done", Outcome("exited", exit_code=3))
    ranks.report(0, "done", Outcome("exited", exit_code=1))
    ranks.report(2, "done", stopped)
    state = ranks.job.state
    assert isinstance(state, Failed)
    assert (state.node, state.ending.exit_code) == (2, 3)
    assert state.ending.message == "rank 1 on node b: exited with code 3"


def test_a_next_attempt_waits_for_the_end_of_all(three: Any) -> None:
    ranks = begun(three, retry=Retry(on_events=("interruption",)))
    for rank in range(3):
        ranks.report(rank, "running")
    assert stops(three.hello(node="b", boot="boot-2")) == ["1.1.0", "1.1.2"]
    ranks.report(0, "done", Outcome("stopped", signal=15))
    assert isinstance(ranks.job.state, Running)
    ranks.report(2, "done", Outcome("stopped", signal=15))
    assert isinstance(ranks.job.state, Queued)
    assert ranks.job.state.attempt == 2
    assert ranks.job.state.last is not None
    assert "rank 1 on node b" in ranks.job.state.last.message


def test_the_master_first(three: Any) -> None:
    ranks = begun(three, startup_order="master-first")
    assert not starts(ranks.report(0, "staging"))
    assert not starts(three.hello(node="b"))
    assert starts(ranks.report(0, "running")) == [1, 2]
    assert starts(three.hello(node="b")) == [1]


def test_the_workers_first(three: Any) -> None:
    three.submit(nodes=3, startup_order="workers-first")
    assert starts(three.schedule()) == [1, 2]
    ranks = Ranks(three, three.cluster.jobs[1])
    assert not starts(ranks.report(1, "running"))
    assert starts(ranks.report(2, "running")) == [0]


def test_the_good_end_of_the_master_is_enough(three: Any) -> None:
    ranks = begun(three, stop_criteria="master-done")
    for rank in range(3):
        ranks.report(rank, "running")
    assert stops(ranks.report(0, "finishing", OK)) == ["1.1.1", "1.1.2"]
    ranks.report(1, "done", Outcome("stopped", signal=15))
    ranks.report(2, "done", Outcome("signaled", signal=11))
    ranks.report(0, "done", OK)
    assert isinstance(ranks.job.state, Succeeded)


def test_data_of_a_worker_that_is_not_saved_is_a_failure(three: Any) -> None:
    ranks = begun(three, stop_criteria="master-done")
    for rank in range(3):
        ranks.report(rank, "running")
    ranks.report(0, "done", OK)
    ranks.report(1, "done", Outcome("not-flushed", phase="flush", message="no space"))
    ranks.report(2, "done", Outcome("stopped", signal=15))
    assert isinstance(ranks.job.state, Failed)


def test_a_stop_of_a_user_goes_to_all(three: Any) -> None:
    ranks = begun(three)
    ranks.report(0, "running")
    assert stops(on_cancel(three.cluster, RunId(1), False, three.now)) == [
        "1.1.0",
        "1.1.1",
        "1.1.2",
    ]
    for rank in range(3):
        ranks.report(rank, "done", Outcome("stopped", signal=15), ran=False)
    assert isinstance(ranks.job.state, Cancelled)
    assert ranks.job.state.ending.message == "a user stopped it"


def test_every_rank_is_told_of_the_others(desk: Any) -> None:
    for name in ("a", "b"):
        desk.hello(node=name, gpus=[GpuDevice(n, "nvidia", "H100", 80) for n in range(2)])
        desk.cluster.nodes[desk.cluster.node_names[name]].address = f"10.0.0.{name}"
    resources = Resources(gpu=Gpu(Range(2, 2)))
    desk.submit(nodes=2, resources=resources, compat=["dstack", "skypilot"])
    sends = [effect.message for effect in desk.schedule() if isinstance(effect, Send)]
    env = sends[1].launch.env
    assert sends[1].launch.hosts == ["10.0.0.a slots=2", "10.0.0.b slots=2"]
    told = ("NODES_NUM", "NODE_RANK", "GPUS_PER_NODE", "GPUS_NUM", "MASTER_NODE_IP", "NODES_IPS")
    both = "10.0.0.a\n10.0.0.b"
    assert [env[f"DSTACK_{name}"] for name in told] == ["2", "1", "2", "4", "10.0.0.a", both]
    names = ("NUM_NODES", "NODE_RANK", "NUM_GPUS_PER_NODE", "NODE_IPS")
    assert [env[f"SKYPILOT_{name}"] for name in names] == ["2", "1", "2", both]


def test_groups_go_where_they_fit(desk: Any) -> None:
    for name, number in (("a", 2), ("b", 8), ("c", 8), ("d", 2)):
        desk.hello(node=name, cpus=number)
    groups = [
        NodeGroup(name="small", nodes=2, resources=cpus(1), commands=["x"]),
        NodeGroup(name="large", nodes=2, resources=cpus(8), commands=["y"]),
    ]
    effects = [*desk.submit(groups=groups), *desk.schedule()]
    found = [e.message.launch for e in effects if isinstance(e, Send)]
    assert [(one.rank, one.commands, one.env["MOORAGE_GROUP"]) for one in found] == [
        (0, ["x"], "small"),
        (1, ["x"], "small"),
        (2, ["y"], "large"),
        (3, ["y"], "large"),
    ]
    (job,) = desk.cluster.jobs.values()
    assert [rank.node for rank in ranks_of(job.state)] == [1, 4, 2, 3]


def test_ranks_make_way_for_each_other(desk: Any) -> None:
    """Whoever fits on few nodes may take one that another could have had."""
    for name, number, memory in (("a", 4, 1), ("b", 4, 8), ("c", 1, 8)):
        desk.hello(node=name, cpus=number, memory=memory * 2**30)
    shapes = [(4, 0), (0.5, 8), (0.5, 0)]
    groups = [
        NodeGroup(
            name=f"g{n}",
            commands=["x"],
            resources=Resources(
                cpu=Cpu(Range(cpu, cpu)), memory=Range(m * 2**30, m * 2**30) if m else None
            ),
        )
        for n, (cpu, m) in enumerate(shapes)
    ]
    desk.submit(groups=groups)
    assert starts(desk.schedule()) == [0, 1, 2]


def test_small_jobs_do_not_starve_a_gang(three: Any) -> None:
    """An endless supply of single jobs, of which one ends at a time."""
    for _ in range(12):
        three.submit(resources=cpus(1))
    three.schedule()
    three.submit(nodes=3, resources=cpus(3))
    large = list(three.cluster.jobs.values())[-1]
    for _ in range(60):
        three.submit(resources=cpus(1))
        three.schedule()
        if not isinstance(large.state, Queued):
            return
        live = [job for node in three.cluster.nodes.values() for job in node.claims]
        oldest = three.cluster.jobs[min(live)]
        Ranks(three, oldest).report(0, "done", OK)
    raise AssertionError("it never started")


def test_what_is_kept_is_not_more_than_a_gang_needs(three: Any) -> None:
    for _ in three.cluster.nodes:
        three.submit(resources=cpus(3))
    three.schedule()
    three.submit(nodes=2, resources=cpus(2))
    three.schedule()
    assert three.cluster.hold is not None
    kept = set(three.cluster.hold.nodes)
    three.submit(resources=cpus(1))
    three.schedule()
    (free,) = set(three.cluster.nodes) - kept
    assert len(three.cluster.nodes[free].claims) == 2
    assert not three.cluster.queue.groups()


def test_only_whole_sets_of_nodes_are_chosen(three: Any) -> None:
    nodes = three.cluster.nodes
    three.submit(resources=cpus(4))
    three.schedule()
    wanted = three.cluster.jobs[1].shape
    assert gang.choose(nodes.values(), [wanted] * 3) is None
    found = gang.choose(nodes.values(), [wanted] * 2)
    assert found is not None
    assert [node.id for node in found] == [NodeId(2), NodeId(3)]


def test_it_says_which_nodes_take_no_jobs_now(desk):
    for name in ("a", "b", "c"):
        desk.hello(node=name)
    desk.hello(node="small", cpus=1)
    desk.cluster.nodes[2].draining = True
    desk.down(3)
    desk.submit(nodes=3, resources=Resources(cpu=Cpu(Range(2))))
    desk.schedule()
    assert explain(desk.cluster, desk.job(), desk.now) == (
        "3 nodes of one fleet at once: only 1 of those that take jobs now can run a part of it"
        " (draining: b; down: c)"
    )
