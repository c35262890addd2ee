"""Committed events, to whoever follows them.

The newest events are kept once, in memory; a follower is only a position. One that is too slow, or
that begins in the past, reads what it lacks from the store, so no follower can hold up another or
make the server grow. While only a few runs are followed, nothing is kept at all: reading a few
runs' events costs less than reading those of everybody.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from types import TracebackType

import msgspec

from moorage.engine.reading import Reading
from moorage.errors import MoorageError
from moorage.ids import RunId
from moorage.protocol.api import Event
from moorage.store.base import Store
from moorage.store.history import History

Reader = Callable[[int, RunId | None, int], Awaitable[list[Event]]]
"""Up to so many events after a number, of one run or of all, from the store."""

RECENT = 4096
"""Events kept in memory."""
PAGE = 500
FEW = 4
"""Runs that are followed at once without keeping the events of all."""

_log = logging.getLogger(__name__)


class Follower:
    """A position in the feed. Use as a context manager."""

    def __init__(self, feed: Feed, run: RunId | None, since: int) -> None:
        self._feed = feed
        self.run = run
        self.since = since
        self.news = asyncio.Event()

    def __enter__(self) -> Follower:
        self._feed.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._feed.remove(self)

    async def next(self) -> list[Event]:
        """The next events, at least one; empty only when the server is closing."""
        while not self._feed.closed:
            self.news.clear()
            found = await self._feed.after(self.since, self.run)
            if found:
                self.since = found[-1].seq
                return found
            await self.news.wait()
        return []


class Feed:
    """Fans out what was committed. All is called on one loop, and only reads wait."""

    def __init__(self, read: Reader, newest: Callable[[], Awaitable[int]]) -> None:
        self._read = read
        self._newest = newest
        self._recent: list[Event] = []
        self._from = 0
        """Every event after this number is in `_recent`, as far as `_pump` came."""
        self._encoded: dict[int, bytes] = {}
        """JSON of events in `_recent`, by number: made once, however many follow."""
        self._collecting = False
        self._behind = False
        """There is something that `_pump` has not looked at."""
        self._followers: dict[RunId | None, set[Follower]] = {}
        self._pumping: asyncio.Task[None] | None = None
        self.closed = False

    async def follow(self, since: int | None, run: RunId | None = None) -> Follower:
        """A follower of all events, or of one run, after number `since`; None: from now on."""
        return Follower(self, run, await self._newest() if since is None else since)

    @classmethod
    def of(cls, store: Store, view: Reading) -> Feed:
        """One that reads a store."""
        history = History(store)

        async def read(since: int, run: RunId | None, limit: int) -> list[Event]:
            find = partial(history.events, since=since, run=run, limit=limit)
            return (await view(find)).events

        async def newest() -> int:
            number: int = (await view(partial(store.read, "max_seq")))[0]["seq"]
            return number

        return cls(read, newest)

    def add(self, follower: Follower) -> None:
        """Wake this follower from now on."""
        self._followers.setdefault(follower.run, set()).add(follower)
        if not self._collecting and self._many():
            self._look()

    def remove(self, follower: Follower) -> None:
        """Wake it no longer."""
        group = self._followers.get(follower.run, set())
        group.discard(follower)
        if not group:
            self._followers.pop(follower.run, None)
        if not self._many():
            self._forget()

    def _many(self) -> bool:
        return None in self._followers or len(self._followers) > FEW

    def committed(self, runs: Collection[RunId | None]) -> None:
        """Events of these runs were committed (None: of none). Costs nothing while nobody follows
        them."""
        if not self._followers:
            return
        if self._many():
            self._look()
        if not self._collecting:
            self._wake(runs)

    async def after(self, since: int, run: RunId | None) -> list[Event]:
        """Up to a page of events after `since`: from memory where it reaches back so far."""
        if not self._collecting or since < self._from:
            return await self._read(since, run, PAGE)
        start = bisect_right(self._recent, since, key=lambda event: event.seq)
        chosen = self._recent[start:]
        return [e for e in chosen if run is None or e.run == run][:PAGE]

    def encoded(self, event: Event) -> bytes:
        """The event as JSON."""
        if (known := self._encoded.get(event.seq)) is not None:
            return known
        text = msgspec.json.encode(event)
        if self._collecting and event.seq > self._from:
            self._encoded[event.seq] = text
        return text

    def close(self) -> None:
        """Let every follower end."""
        self.closed = True
        if self._pumping is not None:
            self._pumping.cancel()
        self._wake_all()

    def _look(self) -> None:
        """Have what was committed by now collected, soon."""
        self._behind = True
        if self._pumping is None and not self.closed:
            self._pumping = asyncio.get_running_loop().create_task(self._pump())

    async def _pump(self) -> None:
        """Collect, until nothing is left that was not looked at."""
        try:
            while self._behind and self._many():
                self._behind = False
                if self._collecting:
                    await self._collect()
                else:
                    await self._begin()
        except MoorageError as error:
            _log.error("events cannot be read: %s", error)
            self._forget()
            self._wake_all()  # each reads by itself now, and is told
        finally:
            self._pumping = None

    async def _begin(self) -> None:
        """Nothing was collected so far: begin after what is committed by now."""
        newest = await self._newest()
        if self._many():
            self._collecting, self._from = True, newest
            self._wake_all()  # what came before must be read by those who lack it

    async def _collect(self) -> None:
        newest = self._recent[-1].seq if self._recent else self._from
        fresh = await self._read(newest, None, PAGE)
        if not self._collecting:
            self._wake_all()
            return
        self._recent.extend(fresh)
        if len(self._recent) > RECENT:
            dropped = self._recent[:-RECENT]
            self._recent = self._recent[-RECENT:]
            self._from = dropped[-1].seq
            for event in dropped:
                self._encoded.pop(event.seq, None)
        self._wake({None if e.run is None else RunId(e.run) for e in fresh})
        if len(fresh) == PAGE:
            self._behind = True

    def _forget(self) -> None:
        self._collecting = False
        self._recent.clear()
        self._encoded.clear()

    def _wake(self, runs: Collection[RunId | None]) -> None:
        for key, group in self._followers.items():
            if key is None or key in runs:
                _wake(group)

    def _wake_all(self) -> None:
        for group in self._followers.values():
            _wake(group)


def _wake(group: set[Follower]) -> None:
    for follower in group:
        follower.news.set()
