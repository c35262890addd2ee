"""Runs: submit, list, look at, stop, wait for, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from moorage.core.explain import away, broken_gpus, doing, explain
from moorage.core.job import Queued
from moorage.engine.loop import Engine
from moorage.errors import Conflict, InvalidInput, NotFound, Problem
from moorage.ids import JobId, RunId
from moorage.protocol.api import (
    FINAL_STATES,
    JobView,
    RetryRequest,
    RunPage,
    RunRef,
    RunRequest,
    RunState,
    RunSummary,
    RunView,
    StopRequest,
    SubmitReply,
    SubmitRequest,
)
from moorage.server.checks import checker, problems_of, require_sound
from moorage.server.parameters import Flag, Limit, Ref, RunPath
from moorage.server.services import Services
from moorage.server.stream import unless_gone
from moorage.server.table import AnyRoute, Call, NoBody, NoParams, Route

FEW = 100
"""Runs of one request that are examined in less time than a thread takes to be asked."""

LONGEST_WAIT = 60.0

_ENDS = frozenset({"run.ended", "run.deleted"})

EXPLAINED = 100
"""Queued runs of one page that say what they wait for: each looks at every node. Half of them are
the newest, half the oldest, which are first in line."""


class RunFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """Which runs to list."""

    active: Annotated[Flag, Meta(description="1: only runs that have not ended")] = 0
    state: RunState | None = None
    name: Annotated[str, Meta(max_length=64)] | None = None
    limit: Limit = 100
    cursor: Annotated[str, Meta(max_length=64, description="From an earlier page")] | None = None


class WaitParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Which run, and how long to wait at most."""

    ref: Ref
    timeout: Annotated[float, Meta(ge=0, le=LONGEST_WAIT, description="Seconds")] = 30.0


async def submit(call: Call[NoParams, SubmitRequest]) -> SubmitReply:
    """All runs of the request or none."""
    request = call.body
    if not 1 <= len(request.request_id) <= 128:
        raise InvalidInput(Problem("must have 1 to 128 characters", field="request_id"))
    if not request.runs:
        raise InvalidInput(Problem("there is nothing to submit", field="runs"))
    if len(request.runs) <= FEW:
        require_sound(request.runs)
    else:
        await asyncio.to_thread(require_sound, request.runs)
    return SubmitReply(await _accept(call.services, request.runs, call.user, request.request_id))


async def _accept(
    services: Services, requests: Sequence[RunRequest], user: str, request_id: str
) -> list[RunRef]:
    """Look at the content and the buckets that they name, make buckets that are to be made, and
    take them."""
    has_content = checker(services.blobs)

    async def check(runs: Sequence[RunRequest]) -> None:
        await has_content(runs)
        await services.mounts.require(runs, user)

    settled = services.mounts.settled(requests)
    return await services.engine.submit(settled, user, request_id, check)


async def retry_run(call: Call[RunPath, RetryRequest]) -> RunRef:
    """Only of a run that has ended: with what was uploaded for it then."""
    engine, body = call.services.engine, call.body
    if not 1 <= len(body.request_id) <= 128:
        raise InvalidInput(Problem("must have 1 to 128 characters", field="request_id"))
    found = await summary(engine, call.params.ref)
    if found.state not in FINAL_STATES:
        fix = f"moorage stop {found.id} ends it"
        raise Conflict(Problem(f"run {found.name} ({found.id}) has not ended", fix))
    request = await engine.view(partial(engine.history.request, str(found.id)))
    if body.name is not None:
        spec = msgspec.structs.replace(request.spec, name=body.name)
        request = msgspec.structs.replace(request, spec=spec)
    if problems := problems_of(request.spec):
        raise InvalidInput(*problems)
    [ref] = await _accept(call.services, [request], call.user, body.request_id)
    return ref


async def list_runs(call: Call[RunFilter, NoBody]) -> RunPage:
    """One page. The newest and the oldest queued runs say what they wait for."""
    asked = call.params
    engine = call.services.engine
    history = engine.history
    page = await engine.view(
        lambda: history.runs(
            active=bool(asked.active),
            state=asked.state,
            name=asked.name,
            limit=asked.limit,
            cursor=asked.cursor,
        )
    )
    queued = [n for n, run in enumerate(page.runs) if run.state == "queued"]
    told: dict[object, str] = {}
    if len(queued) > EXPLAINED:
        queued = queued[: EXPLAINED // 2] + queued[-EXPLAINED // 2 :]
    apart = any(not node.up for node in engine.cluster.nodes.values())
    states = ("starting", "running", "finishing") if apart else ("starting", "finishing")
    live = [n for n, run in enumerate(page.runs) if run.state in states]
    for number in queued + live:
        page.runs[number] = _waiting(engine, page.runs[number], told)
    for number, run in enumerate(page.runs):
        if run.state == "running" and not apart:
            page.runs[number] = _running(engine, run)
    return page


def _running(engine: Engine, run: RunSummary) -> RunSummary:
    """There may be thousands of these: nothing else is looked at than what its node has said."""
    live = engine.cluster.runs.get(RunId(run.id))
    if live is None or not live.live:
        return run
    text = doing(engine.cluster.jobs[min(live.live)])
    return msgspec.structs.replace(run, doing=text) if text else run


def _waiting(engine: Engine, run: RunSummary, told: dict[object, str]) -> RunSummary:
    """`told`: what was found for others; jobs of one shape wait for the same."""
    live = engine.cluster.runs.get(RunId(run.id))
    if live is None or not live.live:
        return run
    job = engine.cluster.jobs[min(live.live)]
    alike = isinstance(job.state, Queued) and job.state.not_before is None
    reason = told.get(job.gang or job.shape) if alike else None
    if reason is None:
        reason = explain(engine.cluster, job, engine.clock(), brief=True)
    if alike:
        told[job.gang or job.shape] = reason
    return msgspec.structs.replace(
        run, waits_for=reason, doing=doing(job), away=away(engine.cluster, job)
    )


async def show_run(call: Call[RunPath, NoBody]) -> RunView:
    """All about one run, with what its jobs wait for."""
    return await view(call.services.engine, call.params.ref)


async def stop_run(call: Call[RunPath, StopRequest]) -> RunSummary:
    """Stopping a run that has ended, or is being stopped, changes nothing."""
    engine = call.services.engine
    found = await summary(engine, call.params.ref)
    try:
        await engine.cancel(RunId(found.id), call.body.abort)
    except NotFound:
        return found  # it has ended
    return await summary(engine, str(found.id))


async def wait_run(call: Call[WaitParams, NoBody]) -> RunView:
    """Comes as soon as the run has ended; with the run as it is when the time is over."""
    engine = call.services.engine
    found = await summary(engine, call.params.ref)
    run = RunId(found.id)
    with await engine.feed.follow(None, run) as follower:

        async def ended() -> None:
            if (await summary(engine, str(run))).state in FINAL_STATES:
                return
            while not engine.feed.closed:
                if any(event.kind in _ENDS for event in await follower.next()):
                    return

        try:
            async with asyncio.timeout(call.params.timeout):
                await unless_gone(call.request, ended())
        except TimeoutError:
            pass
    return await view(engine, str(run))


async def delete_run(call: Call[RunPath, NoBody]) -> RunSummary:
    """Only of a run that has ended."""
    engine = call.services.engine
    found = await summary(engine, call.params.ref)
    await engine.delete(RunId(found.id))
    return found


async def summary(engine: Engine, ref: str) -> RunSummary:
    """What the store knows of a run, in short; NotFound."""
    return await engine.view(partial(engine.history.summary, ref))


async def view(engine: Engine, ref: str) -> RunView:
    """What the store knows of a run, and why its queued jobs wait."""
    found = await engine.view(partial(engine.history.run, ref))
    now = engine.clock()

    def explained(job: JobView) -> JobView:
        live = engine.cluster.jobs.get(JobId(job.id))
        if live is None:
            return job
        waits = explain(engine.cluster, live, now)
        sick = broken_gpus(engine.cluster, live)
        gone = away(engine.cluster, live)
        return msgspec.structs.replace(job, waits_for=waits, warning=sick, away=gone)

    jobs = [explained(job) for job in found.jobs]
    gone = next((job.away for job in jobs if job.away is not None), None)
    summary = msgspec.structs.replace(found.summary, away=gone)
    return msgspec.structs.replace(found, summary=summary, jobs=jobs)


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="POST",
        path="/v1/runs",
        summary="Submit runs: all or none. Repeating a request_id repeats the first reply",
        handler=submit,
        params=NoParams,
        body=SubmitRequest,
        reply=SubmitReply,
        errors=(409, 422),
    ),
    Route(
        method="GET",
        path="/v1/runs",
        summary="List runs, newest first",
        handler=list_runs,
        params=RunFilter,
        body=NoBody,
        reply=RunPage,
        errors=(422,),
    ),
    Route(
        method="GET",
        path="/v1/runs/{ref}",
        summary="All about one run",
        handler=show_run,
        params=RunPath,
        body=NoBody,
        reply=RunView,
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/v1/runs/{ref}/stop",
        summary="Ask a run to end; answered before it has",
        handler=stop_run,
        params=RunPath,
        body=StopRequest,
        body_optional=True,
        reply=RunSummary,
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/v1/runs/{ref}/retry",
        summary="Submit a run that has ended once more, as it was. request_id as in a submit",
        handler=retry_run,
        params=RunPath,
        body=RetryRequest,
        reply=RunRef,
        errors=(404, 409, 422),
    ),
    Route(
        method="DELETE",
        path="/v1/runs/{ref}",
        summary="Forget a run that has ended, and delete its output",
        handler=delete_run,
        params=RunPath,
        body=NoBody,
        reply=RunSummary,
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path="/v1/runs/{ref}/wait",
        summary="Wait until a run has ended",
        handler=wait_run,
        params=WaitParams,
        body=NoBody,
        reply=RunView,
        errors=(404,),
    ),
)
