"""The output of a job, read page by page from the nodes where its attempts ran.

A job's output is that of all its attempts, one after the other, so an offset means the same byte
in every request for it, whichever attempt is running then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from moorage.engine.feed import Follower
from moorage.engine.links import NotConnected
from moorage.engine.loop import Engine
from moorage.errors import NotFound
from moorage.ids import AttemptKey, JobId, RunId
from moorage.protocol.agent import LogData, ReadLog
from moorage.server.stream import CutOff
from moorage.store.history import JobTries, Try

PAGE = 262_144
"""Bytes asked for at once."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of which job's output."""

    run: RunId
    job: int | None
    rank: int
    attempt: int | None
    offset: int
    since: float | None
    follow: bool


class Output:
    """Reads one job's output. `first` finds the beginning, `pages` gives the bytes."""

    def __init__(self, engine: Engine, wanted: Wanted) -> None:
        self._engine = engine
        self._wanted = wanted
        self._base = 0
        """Bytes of the attempts before the present one."""
        self._offset = wanted.offset
        """Within the present attempt."""
        self._since = wanted.since
        self._attempt = wanted.attempt or 1
        self._held: bytes = b""
        self._job: JobTries | None = None

    async def job(self) -> JobTries | None:
        """The job as it is now; None where a schedule has not made one yet. NotFound for a
        position that the run does not have."""
        return await self._engine.view(self._tries)

    def _tries(self) -> JobTries | None:
        history = self._engine.history
        job = history.tries(self._wanted.run, self._wanted.job, self._wanted.rank)
        if job is None:
            history.summary(str(self._wanted.run))
            if self._wanted.job is not None:
                raise NotFound(f"run {self._wanted.run} has no job {self._wanted.job}")
        return job

    async def first(self) -> int:
        """Go to where the bytes wanted begin; their offset. NotFound for an attempt that never
        was. NotConnected where the output lies on a node that cannot be asked now; a follower
        may go on to `pages` all the same, which wait for the node."""
        job = await self.job()
        if self._wanted.attempt is not None and not _find(job, self._wanted.attempt):
            raise NotFound(f"the job had no attempt {self._wanted.attempt}")
        while job is not None and (attempt := _find(job, self._attempt)) is not None:
            page = await self._read(job.id, attempt, wait=False)
            if not self._skips(job, page):
                self._since = None
                self._held = page.data
                self._offset = page.offset + len(page.data)
                return self._base + page.offset
        return self._base + self._offset

    async def pages(self) -> AsyncGenerator[bytes, None]:
        """The bytes from there on. Ends where the output does, or its node is lost; a follower
        waits for more, also for a node to come back. CutOff when the server stops meanwhile."""
        if self._held:
            yield self._held
            self._held = b""  # a reader may stay for days
        with await self._engine.feed.follow(None, self._wanted.run) as follower:
            while not self._engine.feed.closed:
                try:
                    page = await self._turn(follower)
                except NotConnected:
                    page = await self._until_back(follower)
                except NotFound:
                    return  # the run was deleted
                if page is None:
                    return
                if page:
                    yield page
        raise CutOff  # the server is stopping; the reader may go on at the next one

    async def _turn(self, follower: Follower) -> bytes | None:
        """The next bytes; empty if there is news to look at first, None at the end."""
        job = await self._present(follower)
        attempt = _find(job, self._attempt)
        if job is None or attempt is None:
            return await self._news(follower, job)
        page = await self._read(job.id, attempt, wait=self._wanted.follow)
        if page.data:
            self._since = None
            self._offset = page.offset + len(page.data)
            return page.data
        job = await self._present(follower)
        if self._skips(job, page):
            return b""
        if not page.ended and not page.missing:
            return b"" if self._wanted.follow else None
        if self._wanted.attempt is not None and attempt.over:
            return None
        return await self._news(follower, job)

    async def _present(self, follower: Follower) -> JobTries | None:
        """The job, asked for anew only where something happened to its run: a page of output
        should not cost three questions to the database."""
        if self._job is None or follower.news.is_set():
            follower.news.clear()
            self._job = await self.job()
        return self._job

    def _skips(self, job: JobTries | None, page: LogData) -> bool:
        """Go on to the next attempt if there is one and the page says that this one has no more.
        What was asked for beyond its end counts in the next."""
        if page.data or not (page.ended or page.missing) or self._wanted.attempt is not None:
            return False
        if _find(job, self._attempt + 1) is None:
            return False
        self._attempt += 1
        self._base += page.offset
        self._offset = max(0, self._offset - page.offset)
        return True

    async def _until_back(self, follower: Follower) -> bytes | None:
        """Wait for the node, or for news of the run; None if nobody waits or it has ended."""
        job = await self._present(follower)
        attempt = _find(job, self._attempt)
        if not self._wanted.follow or job is None or job.over or not attempt:
            return None
        node = self._engine.cluster.node_names[attempt.node]
        waits = [
            asyncio.ensure_future(self._engine.links.until_open(node)),
            asyncio.ensure_future(follower.next()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._job = None  # the follower may have read, and so put away, the news
        return b""

    async def _news(self, follower: Follower, job: JobTries | None) -> bytes | None:
        if not self._wanted.follow or (job is not None and job.over):
            return None
        await follower.next()
        self._job = None
        return b""

    async def _read(self, job: JobId, attempt: Try, *, wait: bool) -> LogData:
        node = self._engine.cluster.node_names.get(attempt.node)
        if node is None:
            raise NotConnected(f"node {attempt.node} is not known any more")
        read = ReadLog(
            request=0,
            key=str(AttemptKey(job, self._attempt, self._wanted.rank)),
            offset=self._offset,
            limit=PAGE,
            since=self._since,
            wait=wait,
        )
        return await self._engine.links.read_log(node, read)


def _find(job: JobTries | None, attempt: int) -> Try | None:
    return None if job is None else job.tries.get(attempt)
