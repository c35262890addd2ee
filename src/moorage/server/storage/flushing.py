"""What attempts left on their nodes goes into its buckets after all, when somebody asks."""

from __future__ import annotations

import asyncio
from functools import partial

from moorage.core import reactor
from moorage.core.job import Job
from moorage.decoding import from_json
from moorage.engine.links import NotConnected
from moorage.engine.loop import Engine
from moorage.errors import Forbidden
from moorage.ids import AttemptKey, NodeId
from moorage.protocol.agent import Outcome
from moorage.protocol.flush import Flush, Flushed
from moorage.protocol.stores import Flushing
from moorage.specs.task import Task

LEFT = frozenset({"not-flushed", "lost", "node-lost"})
"""Ends of attempts after which something may be on the node."""


class Flushes:
    """Called on the engine's loop. One that is asked for twice is done once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running: dict[str, asyncio.Task[Flushing]] = {}

    async def flush(self, left: list[tuple[str, str]], within: float) -> list[Flushing]:
        """By key and node. What is not done after so many seconds goes on."""
        tasks = [self._task(key, node) for key, node in left]
        if tasks:
            await asyncio.wait(tasks, timeout=within)
        return [
            task.result() if task.done() else Flushing(key, node, "asked")
            for task, (key, node) in zip(tasks, left, strict=True)
        ]

    def close(self) -> None:
        """Ask no more; nodes go on."""
        for task in self._running.values():
            task.cancel()

    def _task(self, key: str, node: str) -> asyncio.Task[Flushing]:
        task = self._running.get(key)
        if task is None:
            task = asyncio.ensure_future(self._flush(key, node))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return task

    async def _flush(self, key: str, node: str) -> Flushing:
        engine = self._engine
        number = engine.cluster.node_names.get(node)
        try:
            if number is None:
                raise NotConnected("there is no such node any more")
            reply = await engine.links.ask(number, partial(_question, key))
        except NotConnected as error:
            return Flushing(key, node, "away", str(error))
        if not isinstance(reply, Flushed):
            return Flushing(key, node, "failed", "the node's agent is of an older version")
        if reply.problem and not reply.unknown:
            more = f" (missing: {', '.join(reply.files[:20])})" if reply.files else ""
            return Flushing(key, node, "failed", reply.problem + more)
        await engine.perform(partial(reactor.on_flushed, engine.cluster, key))
        return Flushing(key, node, "nothing" if reply.unknown else "done", reply.problem)


def _question(key: str, number: int) -> Flush:
    return Flush(number, key)


async def task_of(engine: Engine, key: str, node: NodeId) -> Task:
    """What the run of an attempt asked for, if the attempt is this node's and not over, or ended
    without all of its data in its buckets. Forbidden."""
    refused = Forbidden(f"attempt {key} is not at work on this node")
    job: Job | None = engine.cluster.attempt(key, node)
    if job is not None:
        return engine.cluster.runs[job.run].task
    try:
        number, attempt, rank = AttemptKey.parse(key)
    except ValueError:
        raise refused from None
    params = {"job_id": number, "attempt": attempt, "rank": rank}
    for row in await engine.view(partial(engine.store.read, "attempt_left", params)):
        outcome = from_json(row["outcome"] or b"null", Outcome | None)
        if row["node_id"] == node and outcome is not None and outcome.kind in LEFT:
            return from_json(row["spec"], Task)
    raise refused
