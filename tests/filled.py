"""A store that was in use for a long time: any number of finished and of waiting runs, written
past the server, with all rows that a real run leaves."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from contract import rows
from moorage.specs.resources import Cpu, Range, Resources
from moorage.specs.task import Task
from moorage.store.base import Statement, Store

BATCH = 1000
BLOCKER = "blocker"
NODE = 1
_BEGAN = 1_700_000_000.0
_DAYS = 25 * 86_400.0
_PHASES = ",".join(
    f'{{"name":"{name}","began":{_BEGAN + n},"ended":{_BEGAN + n + 0.5}}}'
    for n, name in enumerate(
        ("claim", "fetch", "mount", "prolog", "run", "flush", "unmount", "clean")
    )
)
_STATES = ("succeeded",) * 17 + ("failed",) * 2 + ("cancelled",)


def fill(store: Store, *, finished: int = 0, waiting: int = 0, cpus: int = 2) -> None:
    """Add runs to an empty store: the finished ones first, each with its job, attempt and events;
    then waiting ones of a low priority, for `cpus` CPUs each. The first of these, BLOCKER, is
    urgent and takes one CPU for good, so that the others wait where there are no more."""
    began = time.time() - _DAYS  # what is older than a month, retention may remove
    step = _DAYS / (finished + waiting + 1)
    store.write([rows.node(NODE, name="long-gone", state="down", resources=_RESOURCES)])
    batch: list[Statement] = []
    for number in range(1, finished + waiting + 1):
        at = began + number * step
        if number <= finished:
            batch += _finished(number, at)
        else:
            batch += _waiting(number, at, cpus, first=number == finished + 1)
        if number % BATCH == 0:
            store.write(_in_order(batch))
            batch = []
    if batch:
        store.write(_in_order(batch))


_RESOURCES = '{"cpus":1,"arch":"x86","memory":1000000000,"disk":1000000000}'


def _in_order(batch: list[Statement]) -> list[Statement]:
    """Neighbours that share a query are quicker; events keep their order."""
    order = ("insert_run", "insert_job", "insert_attempt", "update_attempt", "insert_event")
    return sorted(batch, key=lambda statement: order.index(statement.query))


def _finished(number: int, at: float) -> Iterator[Statement]:
    state = _STATES[number % len(_STATES)]
    end = {"state": state, "started_at": at + 0.1, "ended_at": at + 0.2, "attempt": 1}
    if state != "succeeded":
        end |= {"reason": "exit-code", "message": "exited with code 1", "exit_code": 1}
    yield rows.run(number, name=f"old-{number}", submitted_at=at, node="long-gone", **end)
    yield rows.job(number, number, node_id=NODE, queued_at=at, **end)
    yield rows.attempt(number, node_id=NODE, assigned_at=at)
    usage = '{"cpu_seconds":0.002,"memory_peak":778240}'
    outcome = '{"kind":"exited","exit_code":0}'
    yield rows.progress(
        number, "done", ended_at=at, phases=f"[{_PHASES}]", outcome=outcome, usage=usage
    )
    told = f'{{"name":"old-{number}","user":"ada","state":"queued"}}'
    yield rows.event("run.submitted", run_id=number, at=at, data=told)
    for kind in ("job.queued", "job.starting", "job.running", "job.finishing", "job.ended"):
        job = {"run_id": number, "job_id": number, "node_id": NODE}
        yield rows.event(kind, at=at, data='{"attempt":1}', **job)
    yield rows.event("run.ended", run_id=number, at=at, data=f'{{"state":"{state}"}}')


def _waiting(number: int, at: float, cpus: int, *, first: bool) -> Iterator[Statement]:
    share = Resources(cpu=Cpu(Range(min=1 if first else cpus)))
    name = BLOCKER if first else f"waits-{number}"
    task = Task(commands=["sleep infinity"], priority=50 if first else -10, resources=share)
    spec = msgspec.json.encode(task).decode()
    yield rows.run(number, name=name, submitted_at=at, priority=task.priority, spec=spec)
    yield rows.job(number, number, queued_at=at)
    yield rows.event("run.submitted", run_id=number, at=at)
    yield rows.event("job.queued", run_id=number, job_id=number, at=at)
