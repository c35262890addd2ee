"""Jobs on several nodes: what the report of one rank means for the job and for the other ranks.

The job has the state that all ranks have reached. The first rank that does not succeed decides how
it ends, and ends the others in the same decision; so does the good end of rank 0, where that is
what users wait for (`stop_criteria: master-done`). Every rank keeps its place until the last is
over: all of it is given back at once, and only then may a next attempt begin.
"""

from __future__ import annotations

from collections.abc import Iterable

from moorage.core import rows
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Emit, Send
from moorage.core.job import Event, Finishing, Job, Live, Rank, Running, Starting, ranks_of
from moorage.core.launch import build_launch
from moorage.core.progress import began, newer, outcome_of
from moorage.core.reactor.ends import end
from moorage.core.reactor.feed import job_event, settle
from moorage.core.reactor.mounts import mount_events
from moorage.core.reactor.stops import stop
from moorage.core.run import Run
from moorage.core.team import team_of
from moorage.ids import NodeId
from moorage.protocol.agent import Held, Outcome, Start
from moorage.specs.task import Task

SUCCESS = Outcome("exited", exit_code=0)


def advance(cluster: Cluster, job: Job, node: NodeId, held: Held, now: float) -> list[Effect]:
    """Take over what this rank's node says of it."""
    state, run = job.state, cluster.runs[job.run]
    assert isinstance(state, Live), "gangs never stand in line"
    number, ranks = job.rank_on(node), list(ranks_of(state))
    if not newer(held, ranks[number].report):
        return []
    before = tuple(ranks)
    ranks[number] = Rank(node, held)
    cause = state.cause
    if cause is None and _failed(run.task, ranks, number):
        cause = number
    effects: list[Effect] = [
        rows.update_attempt(job, state, held, now, number),
        *mount_events(job, node, before[number].report, held, now, number),
    ]
    events = _walk(cluster, run, job, tuple(ranks), cause, now)
    if (over := _ended(job, number, before[number].report, held)) is not None:
        events.append(over)
    if all(_is(rank, "done") for rank in ranks):
        return [*effects, *events, *_end(cluster, run, job, now)]
    if events or cause != state.cause:
        effects += [rows.update_job(job), *settle(cluster, run, now), *events]
    if ending(run.task, ranks, cause):
        known = ending(run.task, before, state.cause) and cause == state.cause
        if not job.stopping and not known:
            effects += [stop(run, job, rank.node) for rank in ranks if unfinished(rank)]
    elif not job.stopping:
        late = [n for n in due(run.task, ranks) if n not in due(run.task, before)]
        effects += [start(cluster, job, n) for n in late]
    return effects


def start(cluster: Cluster, job: Job, rank: int) -> Send:
    """Tell the node of a rank to begin."""
    assert isinstance(job.state, Live)
    node = ranks_of(job.state)[rank].node
    claim = cluster.nodes[node].claims[job.id]
    team = team_of(cluster, job, rank)
    return Send(node, Start(build_launch(cluster.runs[job.run], job, claim, team)))


def due(task: Task, ranks: Iterable[Rank]) -> list[int]:
    """The ranks whose turn to start has come (`startup_order`). Once it has, it stays so: a rank
    that is not due was never told to start."""
    ran = [rank.report is not None and began(rank.report) is not None for rank in ranks]
    if task.startup_order == "master-first" and not ran[0]:
        return [0]
    if task.startup_order == "workers-first" and not all(ran[1:]):
        return list(range(1, len(ran)))
    return list(range(len(ran)))


def ending(task: Task, ranks: Iterable[Rank], cause: int | None) -> bool:
    """Do those that have not ended have to?"""
    return cause is not None or _master_done(task, list(ranks))


def unfinished(rank: Rank) -> bool:
    """There is, or may come, a process of it."""
    return rank.report is None or rank.report.state in ("staging", "running")


def _master_done(task: Task, ranks: list[Rank]) -> bool:
    master = ranks[0].report
    return task.stop_criteria == "master-done" and master is not None and _good(outcome_of(master))


def _good(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.kind == "exited" and outcome.exit_code == 0


def _failed(task: Task, ranks: list[Rank], number: int) -> bool:
    """Is this how the job ends? What others do after the good end of rank 0 does not count, if
    that was all to wait for; but no data may be missing."""
    report = ranks[number].report
    outcome = None if report is None else outcome_of(report)
    if outcome is None or _good(outcome):
        return False
    return outcome.kind == "not-flushed" or not _master_done(task, ranks)


def _is(rank: Rank, *states: str) -> bool:
    return rank.report is not None and rank.report.state in states


def _walk(
    cluster: Cluster, run: Run, job: Job, ranks: tuple[Rank, ...], cause: int | None, now: float
) -> list[Effect]:
    """Go through every state that all ranks have reached; the events that tell it."""
    state = job.state
    assert isinstance(state, Live)
    events: list[Effect] = []
    (node, report), workers = ranks[0], ranks[1:]
    times = [None if rank.report is None else _began(rank.report, now) for rank in ranks]
    first = [time for time in times if time is not None]
    if report is not None and isinstance(state, Starting) and len(first) == len(ranks):
        job.started_at = max(first)
        if run.started_at is None:
            run.started_at = job.started_at
        cluster.move(job, Event.SPAWN, Running(node, state.attempt, report, workers, cause))
        events.append(job_event(job))
    exited = all(_is(rank, "finishing", "done") for rank in ranks)
    if report is not None and exited and not isinstance(job.state, Finishing):
        cluster.move(job, Event.EXIT, Finishing(node, state.attempt, report, workers, cause))
        events.append(job_event(job))
    if isinstance(job.state, Starting):
        job.state = Starting(node, state.attempt, report, workers, cause)
    elif report is not None and not events:
        job.state = type(state)(node, state.attempt, report, workers, cause)
    return events


def _began(held: Held, now: float) -> float | None:
    at = began(held)
    return now if at is None and held.state == "running" else at


def _ended(job: Job, number: int, before: Held | None, held: Held) -> Emit | None:
    """Tell, once, that a rank ended before the others, and how."""
    outcome = outcome_of(held)
    if outcome is None or (before is not None and outcome_of(before) is not None):
        return None
    assert isinstance(job.state, Live)
    data = {
        "attempt": job.state.attempt,
        "rank": number,
        "kind": outcome.kind,
        "exit_code": outcome.exit_code,
        "message": outcome.message,
    }
    node = ranks_of(job.state)[number].node
    return Emit("rank.ended", job.run, job.id, node, data)


def _end(cluster: Cluster, run: Run, job: Job, now: float) -> list[Effect]:
    """Nothing is left of any rank."""
    state = job.state
    assert isinstance(state, Live)
    if state.cause is None:
        return end(cluster, run, job, SUCCESS, now, node=state.node)
    node, report = ranks_of(state)[state.cause]
    assert report is not None
    where = f"rank {state.cause} on node {cluster.nodes[node].name}"
    return end(cluster, run, job, outcome_of(report) or SUCCESS, now, node=node, where=where)
