"""An agent connects, and says what it holds; or its connection is gone."""

from __future__ import annotations

from moorage.core import rows
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Emit, Send, Stir, Wake
from moorage.core.job import Job, Live, Prefilled, Stopping, ranks_of
from moorage.core.node import Node
from moorage.core.reactor.flaps import changed
from moorage.core.reactor.fleets import bind
from moorage.core.reactor.health import ask_health
from moorage.core.reactor.ranks import due, ending, start, unfinished
from moorage.core.reactor.reports import absorb, lose
from moorage.core.reactor.stops import stop
from moorage.core.reactor.turns import ask_back, requeue, wait
from moorage.ids import NodeId
from moorage.protocol.agent import DropLogs, Forget, Hello, Outcome, Retract
from moorage.specs.retry import on_loss_of


def on_hello(
    cluster: Cluster, hello: Hello, now: float, away: float | None = None
) -> list[Effect]:
    """Take what the node holds as reports, and answer with the difference to what it should.

    The node's number is `cluster.node_names[hello.node]` afterwards. Nothing sent on an earlier
    connection may reach the agent any more. `away`: for how many seconds it was not heard of, if
    that is known.
    """
    known = cluster.node_names.get(hello.node)
    before = None if known is None else cluster.nodes[known]
    was_up = before is not None and before.up
    rebooted = before is not None and before.boot_id != hello.boot_id
    node = cluster.node_for(hello)
    effects: list[Effect] = [rows.upsert_node(node), *bind(cluster, node)]
    effects += ask_health(cluster, node)
    if not was_up:
        data = {"away": None if away is None else round(away, 1), "rebooted": rebooted}
        told = Emit("node.up", node=node.id, data=data)
        effects += changed(node, told, now, always=rebooted)
    taken, forget = absorb(cluster, node.id, hello.held, now)
    effects += taken
    if forget:
        effects.append(Send(node.id, Forget(forget)))
    if node.dropped_logs:
        effects.append(Send(node.id, DropLogs(list(node.dropped_logs))))
    held = {claim.key for claim in hello.held if claim.state != "waiting"}
    for number in sorted(node.claims):
        effects += _difference(cluster, node, cluster.jobs[number], held, rebooted, now)
    waiting = {claim.key for claim in hello.held if claim.state == "waiting"}
    for number in [number for line in node.lines.values() for number in line]:
        effects += _in_line(cluster, node, cluster.jobs[number], waiting, rebooted, now)
    return [*effects, Wake()]


def _difference(
    cluster: Cluster, node: Node, job: Job, held: set[str], rebooted: bool, now: float
) -> list[Effect]:
    """What a job that should be on this node needs."""
    run, state = cluster.runs[job.run], job.state
    assert isinstance(state, Live)
    ranks, number = ranks_of(state), job.rank_on(node.id)
    ends = bool(job.stopping) or ending(run.task, ranks, state.cause)
    if job.rank_key(number) in held:
        wanted = job.stopping or (ends and unfinished(ranks[number]))
        return [stop(run, job, node.id)] if wanted else []
    report = ranks[number].report
    if report is not None and report.state == "done":
        return []  # it waits for the other ranks
    if job.gang and not ends and number not in due(run.task, ranks):
        return []  # nor was it told to start
    if rebooted:
        return lose(cluster, job, node.id, f"node {node.name} was rebooted", now)
    # It never said that it holds the claim, so the Start, or the answer to it, went missing. An
    # agent knows each key it ever claimed until it is told to forget: Start cannot run it twice,
    # and Stop of a key it does not know is answered with the end we wait for.
    if report is None:
        return [stop(run, job, node.id)] if ends else [start(cluster, job, number)]
    return lose(cluster, job, node.id, f"node {node.name} no longer knows of it", now)


def _in_line(
    cluster: Cluster, node: Node, job: Job, waiting: set[str], rebooted: bool, now: float
) -> list[Effect]:
    """What a job that should be in line on this node needs."""
    assert isinstance(job.state, Prefilled)
    run = cluster.runs[job.run]
    if job.key in waiting:
        if job.stopping:
            return [stop(run, job, node.id)]
        if job.state.retracting:
            return [Send(node.id, Retract([job.key]))]
        return [] if node.admitted(job.shape.where) else ask_back([job])
    # Not claimed, and nothing that was sent before can arrive any more: it has not begun. After a
    # reboot that is no longer sure (the claim may have been lost with the page cache), but nothing
    # of it lives: the next attempt gets a number of its own.
    unwanted = job.state.retracting or not node.admitted(job.shape.where)
    if job.stopping or unwanted or rebooted:
        return requeue(cluster, job, now)
    return [wait(cluster, job, node.id)]


def on_node_down(cluster: Cluster, node: NodeId, now: float, silent: float = 0.0) -> list[Effect]:
    """The connection is gone, after so many seconds without a word. Its jobs stay as they are:
    they may well go on running, and the next Hello says what became of them."""
    found = cluster.nodes[node]
    if not found.up:
        return []
    found.up = False
    found.last_seen = now - silent
    stir = [Stir()] if found.name in cluster.hosts_by_node else []
    told = Emit("node.down", node=node, data={"silent": round(silent, 1)})
    return [rows.upsert_node(found), *changed(found, told, now), *stir]


def on_node_lost(cluster: Cluster, node: NodeId, now: float, away: float = 0.0) -> list[Effect]:
    """It was not heard of for longer than its lease. What was fenced there is over by now, and
    what stood in line there will not begin: both may be given up. The rest waits for the node."""
    found = cluster.nodes[node]
    if found.up or found.lost:
        return []
    found.lost = True
    effects: list[Effect] = [rows.upsert_node(found)]
    effects.append(Emit("node.lost", node=node, data={"away": round(away, 1)}))
    for number in [number for line in found.lines.values() for number in line]:
        over = Outcome(
            "node-lost", message=f"it stood in line on node {found.name}, which was lost"
        )
        effects += requeue(cluster, cluster.jobs[number], now, over)
    for number in sorted(found.claims):
        job = cluster.jobs[number]
        given_up = job.stopping == Stopping.ABORT
        if given_up or on_loss_of(cluster.runs[job.run].task) != "wait":
            message = f"node {found.name} was lost: no sign of life for {away:.0f} s"
            effects += lose(cluster, job, node, message, now, "node-lost")
    return [*effects, Wake()]
