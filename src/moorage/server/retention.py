"""The chore that keeps a server from growing: what was kept for long enough goes, step by step.

Each step is small and is followed by a pause several times as long as it took, so that a server
under load hardly notices it. Only the leader does this: it works through the engine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import msgspec

from moorage.engine.links import NotConnected
from moorage.errors import MoorageError
from moorage.ids import NodeId, RunId
from moorage.protocol.agent import Sweep, Swept
from moorage.protocol.api import CollectReply
from moorage.server.lasting import abandonable, settled
from moorage.server.services import Services
from moorage.server.settings import Settings
from moorage.store.retention import Limits, Retention
from moorage.store.sqlite import SqliteStore
from moorage.store.telling import Tell, nobody

FIRST_AFTER = 60.0
ROWS_EVERY = 600.0
CONTENT_EVERY = 86_400.0
"""Seconds. Content needs every manifest read, so it has its turn once a day."""
REST = 3.0
"""Each step is followed by a pause so many times as long."""
NODE_PATIENCE = 120.0

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Growth:
    """Removes what is beyond the settings of one server."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        engine = services.engine
        self._retention = Retention(engine.store, engine.writer, limits(services.settings))

    async def run(self) -> None:
        """From time to time, until cancelled."""
        await asyncio.sleep(FIRST_AFTER)
        content_at = 0.0
        while True:
            content = time.monotonic() >= content_at
            try:
                removed = await self.collect(content=content)
            except MoorageError as error:
                _log.error("old runs, events or content could not be removed: %s", error)
            else:
                if told := describe(removed):
                    _log.info("removed what was kept for long enough: %s", told)
            if content:
                content_at = time.monotonic() + CONTENT_EVERY
            await asyncio.sleep(ROWS_EVERY)

    async def collect(
        self,
        *,
        content: bool = True,
        dry_run: bool = False,
        rest: float = REST,
        tell: Tell = nobody,
    ) -> CollectReply:
        """Remove all that is beyond the limits now, or say what would go. What waits for another
        (content that only a removed run named, rows of its events) goes the next time. Cancelled,
        it ends after the step that it is at."""
        async with self._engine.tidying:
            now = self._engine.clock()
            reply = await (self._would(now) if dry_run else self._rows(now, rest, tell))
            reply = await self._outputs(reply, dry_run)
            if content:
                found = await abandonable(partial(self._content, now, dry_run), tell)
                reply = msgspec.structs.replace(
                    reply,
                    blobs=found.blobs,
                    bytes=found.bytes,
                    skipped=reply.skipped + found.skipped,
                )
            if not dry_run:
                reply = await self._shrink(reply, rest)
            return reply

    async def _would(self, now: float) -> CollectReply:
        def count() -> CollectReply:
            runs = sum(map(len, self._retention.runs(now)))
            events = self._retention.expired_events(now)
            jobs = sum(self._retention.expired_jobs(run, now) for run in schedules)
            requests = self._retention.expired_requests(now)
            return CollectReply(0, 0, runs=runs, jobs=jobs, events=events, requests=requests)

        schedules = self._schedules()
        return await settled(count)

    async def _rows(self, now: float, rest: float, tell: Tell) -> CollectReply:
        # Counted only for somebody who watches.
        going = CollectReply(0, 0) if tell is nobody else await self._would(now)
        runs = await self._runs(now, rest, lambda done: tell("runs", done, going.runs))
        jobs = await self._jobs(now, rest, lambda done: tell("jobs", done, going.jobs))
        events = await _all(
            partial(self._retention.trim_events, now),
            rest,
            lambda done: tell("events", done, going.events),
        )
        requests = await _all(
            partial(self._retention.forget_requests, now),
            rest,
            lambda done: tell("request ids", done, going.requests),
        )
        return CollectReply(0, 0, runs=runs, jobs=jobs, events=events, requests=requests)

    def _schedules(self) -> list[RunId]:
        runs = self._engine.cluster.runs.values()
        return [run.id for run in runs if run.task.schedule is not None]

    async def _jobs(self, now: float, rest: float, tell: Callable[[int], None]) -> int:
        removed = 0
        for run in self._schedules():
            find = partial(self._retention.jobs, run, now)
            while step := await settled(find):
                began = time.monotonic()
                await self._engine.expire_jobs(step.run, step.before, step.output)
                removed += step.jobs
                tell(removed)
                await asyncio.sleep(rest * (time.monotonic() - began))
        return removed

    async def _runs(self, now: float, rest: float, tell: Callable[[int], None]) -> int:
        removed = 0
        found = self._retention.runs(now)
        while runs := await _next(found):
            steps = self._retention.going(runs)
            while step := await _next(steps):
                began = time.monotonic()
                await self._engine.expire(step.runs, step.output)
                removed += len(step.runs)
                tell(removed)
                await asyncio.sleep(rest * (time.monotonic() - began))
        return removed

    async def _outputs(self, reply: CollectReply, dry_run: bool) -> CollectReply:
        """Ask every node that is connected; the others are asked the next time."""
        settings = self._services.settings
        if not (settings.output_retention or settings.output_limit):
            return reply
        nodes = self._engine.cluster.nodes
        answers = await asyncio.gather(*(self._sweep(node, dry_run) for node in nodes))
        away = [nodes[node].name for node, swept in zip(nodes, answers, strict=True) if not swept]
        swept = [answer for answer in answers if answer]
        return msgspec.structs.replace(
            reply,
            outputs=sum(answer.attempts for answer in swept),
            output_bytes=sum(answer.bytes for answer in swept),
            skipped=reply.skipped
            + [f"output on node {name}: it is not connected" for name in away],
        )

    async def _sweep(self, node: NodeId, dry_run: bool) -> Swept | None:
        settings = self._services.settings
        age, total = settings.output_retention, settings.output_limit
        try:
            async with asyncio.timeout(NODE_PATIENCE):
                reply = await self._engine.links.ask(
                    node, lambda number: Sweep(number, age, total, dry_run)
                )
        except (TimeoutError, NotConnected):
            return None
        return reply if isinstance(reply, Swept) else None

    def _content(self, now: float, dry_run: bool, tell: Tell) -> CollectReply:
        settings = self._services.settings
        return self._services.blobs.collect(
            now, settings.blob_grace, limit=settings.blob_limit, dry_run=dry_run, tell=tell
        )

    async def _shrink(self, reply: CollectReply, rest: float) -> CollectReply:
        """PostgreSQL does this by itself (autovacuum)."""
        store = self._engine.store
        if not isinstance(store, SqliteStore):
            return reply
        file = store.file
        before = await settled(file.free)
        while await _paced(file.shrink, rest):
            pass
        await settled(file.checkpoint)
        after = await settled(file.free)
        return msgspec.structs.replace(reply, database_bytes=max(0, before - after))


def limits(settings: Settings) -> Limits:
    """What the settings say about rows."""
    return Limits(
        run_age=settings.run_retention,
        runs=settings.run_limit,
        event_age=settings.event_retention,
        events=settings.event_limit,
        request_age=settings.request_retention,
        schedule_jobs=settings.schedule_jobs,
    )


def describe(removed: CollectReply) -> str:
    """What was removed, for the log; empty where nothing was."""
    counts = (
        (removed.runs, "runs"),
        (removed.jobs, "jobs of schedules"),
        (removed.events, "events"),
        (removed.requests, "request ids"),
        (removed.outputs, "outputs"),
        (removed.blobs, "blobs"),
    )
    return ", ".join(f"{count} {what}" for count, what in counts if count)


async def _all(step: Callable[[], int], rest: float, tell: Callable[[int], None]) -> int:
    total = 0
    while count := await _paced(step, rest):
        total += count
        tell(total)
    return total


async def _paced(step: Callable[[], T], rest: float) -> T:
    began = time.monotonic()
    done = await settled(step)
    await asyncio.sleep(rest * (time.monotonic() - began))
    return done


async def _next(steps: Iterator[T]) -> T | None:
    return await settled(lambda: next(steps, None))
