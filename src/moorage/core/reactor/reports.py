"""An agent says what became of the attempts it holds.

Reports carry whole states, may skip states, come twice and come late: what is not newer than what
is known changes nothing, and what concerns no present attempt is answered with what ends it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from moorage.core import rows
from moorage.core.cluster import Cluster
from moorage.core.effects import Arm, Effect, Send, Timer, Wake
from moorage.core.job import (
    Cancelled,
    Event,
    Failed,
    Finishing,
    Job,
    Live,
    Prefilled,
    Queued,
    Running,
    Starting,
    Succeeded,
)
from moorage.core.reactor.feed import job_event, settle
from moorage.core.reactor.turns import leave_line, take_place
from moorage.core.reasons import Verdict, judge
from moorage.core.run import Run
from moorage.ids import NodeId
from moorage.protocol.agent import Ack, Forget, Held, Outcome, Report, Stop

LONGEST_DELAY = 60.0
FREE_ATTEMPTS = 10
"""An attempt up to this number of which no process was started is made good without a policy:
nothing ran. What brings its agent down each time must not do so for ever."""
_ORDER = ("staging", "running", "finishing", "done")


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
            effects += _advance(cluster, job, claim, now)
        elif claim.state not in (
            "done",
            "retracted",
        ):  # not to be here: end it, and its `done` is forgotten
            effects.append(Send(node, Stop(claim.key, grace=0, abort=True)))
        if claim.state == "done":
            forget.append(claim.key)
    return effects, forget


def lose(cluster: Cluster, job: Job, message: str, now: float) -> list[Effect]:
    """The attempt is known to be dead, and nobody will report it."""
    if not isinstance(job.state, Live):
        return []
    phases = [] if job.state.report is None else job.state.report.phases
    outcome = Outcome("lost", message=message)
    return _advance(cluster, job, Held(job.key, "done", phases, outcome), now)


def _advance(cluster: Cluster, job: Job, held: Held, now: float) -> list[Effect]:
    """Walk the job to the state that the report says, through every state between."""
    events: list[Effect] = []
    if isinstance(job.state, Prefilled):
        if (left := leave_line(cluster, job, held, now)) is not None:
            return left
        events = take_place(cluster, job)
    state, run = job.state, cluster.runs[job.run]
    if not isinstance(state, Live) or not _newer(held, state.report):
        return []
    began = _began(held)
    if isinstance(job.state, Starting) and (held.state == "running" or began is not None):
        job.started_at = now if began is None else began
        if run.started_at is None:
            run.started_at = job.started_at
        cluster.move(job, Event.SPAWN, Running(state.node, state.attempt, held))
        events.append(job_event(job))
    if held.state in ("finishing", "done") and not isinstance(job.state, Finishing):
        cluster.move(job, Event.EXIT, Finishing(state.node, state.attempt, held))
        events.append(job_event(job))
    attempt = rows.update_attempt(job, state, held, now)
    if held.state == "done":
        cluster.nodes[state.node].learn(job.shape, _lasted(held))
        return [attempt, *events, *_end(cluster, run, job, held, now)]
    if isinstance(job.state, Starting) or not events:
        job.state = type(state)(state.node, state.attempt, held)
    if events:
        return [attempt, rows.update_job(job), *settle(cluster, run, now), *events]
    return [attempt]


def _newer(held: Held, known: Held | None) -> bool:
    """Within one attempt, states and phases are only ever added."""
    if held.state not in _ORDER:
        return False
    return known is None or _progress(held) > _progress(known)


def _progress(held: Held) -> tuple[int, int, int, bool]:
    finished = sum(phase.ended is not None for phase in held.phases)
    return (_ORDER.index(held.state), len(held.phases), finished, held.outcome is not None)


def _began(held: Held) -> float | None:
    """When its process started; None if there is none yet, or never was."""
    return next((phase.began for phase in held.phases if phase.name == "run"), None)


def _lasted(held: Held) -> float:
    """Seconds from its process's start to its end, by the node's clock; 0 where none ran."""
    run = next((phase for phase in held.phases if phase.name == "run"), None)
    return 0.0 if run is None or run.ended is None else run.ended - run.began


def _not_over(held: Held) -> bool:
    return held.state != "done"


def _end(cluster: Cluster, run: Run, job: Job, held: Held, now: float) -> list[Effect]:
    """Nothing is left of the attempt: a next one, or the end of the job."""
    state = job.state
    outcome = held.outcome or Outcome("lost", message="its agent did not say how it ended")
    verdict = judge(outcome, job.stopping)
    free = outcome.kind == "unstarted" and state.attempt <= FREE_ATTEMPTS and not job.stopping
    if verdict.event is Event.FAIL and job.failed_at is None and not free:
        job.failed_at = now
    run.note(verdict.ending)
    at = now + _delay(job) if free else _next_try(run, job, verdict, now)
    if isinstance(state, Live) and at is not None:
        last = verdict.ending
        job.queued_at = now
        job.started_at = None
        cluster.move(job, Event.RETRY, Queued(cluster.next_attempt(job), at, last))
        told = [rows.update_job(job), *settle(cluster, run, now), job_event(job)]
        return [*told, Arm(Timer("retry", job.id), at), Wake()]
    if isinstance(state, Live):
        final = _FINAL[verdict.event](state.node, state.attempt, now, verdict.ending)
        cluster.move(job, verdict.event, final)
    return [rows.update_job(job), job_event(job), *settle(cluster, run, now), Wake()]


def _next_try(run: Run, job: Job, verdict: Verdict, now: float) -> float | None:
    """When the next attempt may begin; None for none.

    The window is judged here, once: a retry that then waits for a free node is not given up, since
    a lack of room always queues.
    """
    retry = run.task.retry
    if retry is None or verdict.retry is None or verdict.retry not in retry.on_events:
        return None
    at = now + _delay(job)
    first = now if job.failed_at is None else job.failed_at
    return at if at <= first + retry.duration else None


def _delay(job: Job) -> float:
    """Seconds before the attempt after the present one."""
    return min(LONGEST_DELAY, 2.0 ** min(job.state.attempt - 1, 10))


_FINAL: Mapping[Event, type[Succeeded | Failed | Cancelled]] = MappingProxyType(
    {Event.SUCCEED: Succeeded, Event.FAIL: Failed, Event.CANCEL: Cancelled}
)
