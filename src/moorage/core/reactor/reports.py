"""An agent says what became of the attempts it holds.

Reports carry whole states, may skip states, come twice and come late: what is not newer than what
is known changes nothing, and what concerns no present attempt is answered with what ends it.
"""

from __future__ import annotations

from collections.abc import Sequence

from moorage.core import rows
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Send, Wake
from moorage.core.job import Event, Finishing, Job, Live, Prefilled, Running, Starting, ranks_of
from moorage.core.node import Node
from moorage.core.progress import began, lasted, newer, outcome_of
from moorage.core.reactor import ranks
from moorage.core.reactor.ends import end
from moorage.core.reactor.feed import job_event, settle
from moorage.core.reactor.mounts import mount_events
from moorage.core.reactor.storages import left_over
from moorage.core.reactor.turns import leave_line, take_place
from moorage.ids import NodeId
from moorage.protocol.agent import Ack, Forget, Held, Outcome, OutcomeKind, Report, Stop


def on_report(cluster: Cluster, node: NodeId, report: Report, now: float) -> list[Effect]:
    """The Ack and the Forgets leave only after the writes: a report is resent until then."""
    effects, forget = absorb(cluster, node, report.held, now)
    effects.append(Send(node, Ack(report.seq)))
    if forget:
        effects.append(Send(node, Forget(forget)))
    return effects


def absorb(
    cluster: Cluster, node: NodeId, held: Sequence[Held], now: float
) -> tuple[list[Effect], list[str]]:
    """Take over the states of claims; and the keys that the node may forget."""
    effects: list[Effect] = []
    forget: list[str] = []
    # Ends first: what took the place of one that ended must find it released.
    for claim in sorted(held, key=_not_over):
        job = cluster.attempt(claim.key, node)
        if job is not None:
            run = cluster.runs[job.run]
            effects += _advance(cluster, job, node, claim, now)
            effects += left_over(cluster, run, job, claim)
        elif claim.state not in (
            "done",
            "retracted",
        ):  # not to be here: end it, and its `done` is forgotten
            effects.append(Send(node, Stop(claim.key, grace=0, abort=True)))
            if claim.state != "waiting":
                cluster.nodes[node].ghosts.add(claim.key)
        if claim.state == "done":
            forget.append(claim.key)
            effects += _exorcise(cluster.nodes[node], claim.key)
    return effects, forget


def lose(
    cluster: Cluster,
    job: Job,
    node: NodeId,
    message: str,
    now: float,
    kind: OutcomeKind = "lost",
) -> list[Effect]:
    """What the attempt has on this node is known to be dead, and nobody will report it."""
    if not isinstance(job.state, Live):
        return []
    rank = job.rank_on(node)
    report = ranks_of(job.state)[rank].report
    if report is not None and report.state == "done":
        return []
    phases = [] if report is None else report.phases
    held = Held(job.rank_key(rank), "done", phases, Outcome(kind, message=message))
    run = cluster.runs[job.run]
    return [*_advance(cluster, job, node, held, now), *left_over(cluster, run, job, held)]


def _advance(cluster: Cluster, job: Job, node: NodeId, held: Held, now: float) -> list[Effect]:
    """Walk the job to the state that the report says, through every state between."""
    if job.gang:
        return ranks.advance(cluster, job, node, held, now)
    events: list[Effect] = []
    if isinstance(job.state, Prefilled):
        if (left := leave_line(cluster, job, held, now)) is not None:
            return left
        events = take_place(cluster, job)
    state, run = job.state, cluster.runs[job.run]
    if not isinstance(state, Live) or not newer(held, state.report):
        return []
    told = mount_events(job, node, state.report, held, now)
    at = began(held)
    if isinstance(job.state, Starting) and (held.state == "running" or at is not None):
        job.started_at = now if at is None else at
        if run.started_at is None:
            run.started_at = job.started_at
        cluster.move(job, Event.SPAWN, Running(state.node, state.attempt, held))
        events.append(job_event(job))
    if held.state in ("finishing", "done") and not isinstance(job.state, Finishing):
        cluster.move(job, Event.EXIT, Finishing(state.node, state.attempt, held))
        events.append(job_event(job))
    attempt = rows.update_attempt(job, state, held, now)
    if held.state == "done" and (outcome := outcome_of(held)) is not None:
        if not outcome.here:  # how soon a node refuses says nothing of how long jobs take
            cluster.nodes[state.node].learn(job.shape, lasted(held))
        over = end(cluster, run, job, outcome, now, node=state.node)
        return [attempt, *events, *told, *over]
    if isinstance(job.state, Starting) or not events:
        job.state = type(state)(state.node, state.attempt, held)
    if events:
        return [attempt, rows.update_job(job), *settle(cluster, run, now), *events, *told]
    return [attempt, *told]


def _exorcise(node: Node, key: str) -> list[Effect]:
    """Nothing is left of it: what it took of the node is free."""
    if key not in node.ghosts:
        return []
    node.ghosts.discard(key)
    return [] if node.ghosts else [Wake()]


def _not_over(held: Held) -> bool:
    return held.state != "done"
