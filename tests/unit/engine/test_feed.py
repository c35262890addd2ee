from __future__ import annotations

import asyncio

import pytest

from moorage.engine import feed as feeds
from moorage.engine.feed import Feed
from moorage.ids import RunId
from moorage.protocol.api import Event
from moorage.store.base import StoreBroken


class Log:
    """Events as the store would give them; counts how often it is asked."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reads = 0

    def append(self, run: int) -> None:
        self.events.append(Event(len(self.events) + 1, 0.0, "test", run=run))

    async def read(self, since: int, run: RunId | None, limit: int) -> list[Event]:
        self.reads += 1
        found = [e for e in self.events if e.seq > since and (run is None or e.run == run)]
        return found[:limit]

    async def newest(self) -> int:
        return len(self.events)


def test_a_follower_gets_what_was_and_what_comes() -> None:
    async def scenario() -> None:
        log = Log()
        feed = Feed(log.read, log.newest)
        log.append(1)
        with await feed.follow(0) as follower:
            assert [e.seq for e in await follower.next()] == [1]
            waiting = asyncio.ensure_future(follower.next())
            await asyncio.sleep(0)
            log.append(2)
            feed.committed({RunId(2)})
            assert [e.seq for e in await waiting] == [2]

    asyncio.run(scenario())


def test_from_now_on_and_one_run_only() -> None:
    async def scenario() -> None:
        log = Log()
        feed = Feed(log.read, log.newest)
        log.append(7)
        with await feed.follow(None, RunId(7)) as follower:
            waiting = asyncio.ensure_future(follower.next())
            await asyncio.sleep(0)
            log.append(8)
            feed.committed({RunId(8)})
            await asyncio.sleep(0)
            log.append(7)
            feed.committed({RunId(7)})
            assert [e.seq for e in await waiting] == [3]

    asyncio.run(scenario())


def test_nobody_follows_nothing_is_read() -> None:
    async def scenario() -> None:
        log = Log()
        feed = Feed(log.read, log.newest)
        log.append(1)
        feed.committed({RunId(1)})
        await asyncio.sleep(0)
        assert log.reads == 0

    asyncio.run(scenario())


def test_many_followers_share_one_read() -> None:
    async def scenario() -> None:
        log = Log()
        feed = Feed(log.read, log.newest)
        followers = [await feed.follow(None) for _ in range(20)]
        for follower in followers:
            follower.__enter__()
        waiting = [asyncio.ensure_future(follower.next()) for follower in followers]
        await asyncio.sleep(0)
        log.append(1)
        feed.committed({RunId(1)})
        pages = await asyncio.gather(*waiting)
        assert all([e.seq for e in page] == [1] for page in pages)
        assert log.reads == 1

    asyncio.run(scenario())


def test_memory_is_bounded_and_a_slow_follower_misses_nothing() -> None:
    async def scenario() -> None:
        log = Log()
        feed = Feed(log.read, log.newest)
        total = feeds.RECENT + 3 * feeds.PAGE + 7
        with await feed.follow(0) as slow, await feed.follow(0) as fast:
            seen = 0
            while len(log.events) < total:
                log.append(1)
                if len(log.events) % 100 == 0 or len(log.events) == total:
                    feed.committed({RunId(1)})
                    await asyncio.sleep(0)
                    seen = (await fast.next())[-1].seq
            while seen < total:
                seen = (await fast.next())[-1].seq
            assert len(feed._recent) <= feeds.RECENT
            got: list[int] = []
            while len(got) < total:
                got += [e.seq for e in await slow.next()]
            assert got == list(range(1, total + 1))

    asyncio.run(scenario())


def test_close_ends_followers() -> None:
    async def scenario() -> None:
        log = Log()
        feed = Feed(log.read, log.newest)
        with await feed.follow(None) as follower:
            waiting = asyncio.ensure_future(follower.next())
            await asyncio.sleep(0)
            feed.close()
            assert await waiting == []

    asyncio.run(scenario())


def test_while_few_runs_are_followed_the_others_events_are_not_read() -> None:
    async def scenario() -> None:
        log = Log()
        asked: list[RunId | None] = []

        async def read(since: int, run: RunId | None, limit: int) -> list[Event]:
            asked.append(run)
            return await log.read(since, run, limit)

        feed = Feed(read, log.newest)
        with await feed.follow(None, RunId(1)) as follower:
            waiting = asyncio.ensure_future(follower.next())
            await asyncio.sleep(0)
            for run in (2, 3, 1):
                log.append(run)
                feed.committed({RunId(run)})
                await asyncio.sleep(0)
            assert [e.run for e in await waiting] == [1]
            assert set(asked) == {RunId(1)}
            with await feed.follow(None):
                assert feed._pumping is not None
                await feed._pumping
                log.append(1)
                feed.committed({RunId(1)})
                await asyncio.sleep(0)
                assert [e.seq for e in await follower.next()] == [4]
                assert asked[-1] is None
            assert feed._recent == []

    asyncio.run(scenario())


def test_an_event_is_encoded_once_for_all_followers() -> None:
    async def scenario() -> None:
        log = Log()
        feed = Feed(log.read, log.newest)
        log.append(1)
        with await feed.follow(None) as one, await feed.follow(None) as other:
            waiting = [asyncio.ensure_future(follower.next()) for follower in (one, other)]
            await asyncio.sleep(0)
            log.append(1)
            feed.committed({RunId(1)})
            texts = [feed.encoded((await page)[0]) for page in waiting]
            assert texts[0] is texts[1]
            assert feed.encoded(log.events[0]) is not feed.encoded(log.events[0])

    asyncio.run(scenario())


class SlowLog(Log):
    """Each read looks at once, and its answer comes when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: asyncio.Queue[None] = asyncio.Queue()

    async def read(self, since: int, run: RunId | None, limit: int) -> list[Event]:
        found = await super().read(since, run, limit)
        await self.answers.get()
        return found

    async def newest(self) -> int:
        found = len(self.events)
        await self.answers.get()
        return found


@pytest.mark.parametrize("followed", [1, None], ids=["a run", "all"])
def test_what_is_committed_during_a_read_is_not_missed(followed: int | None) -> None:
    async def scenario() -> None:
        log = SlowLog()
        feed = Feed(log.read, log.newest)
        run = None if followed is None else RunId(followed)
        with await feed.follow(0, run) as follower:
            waiting = asyncio.ensure_future(follower.next())
            for _ in range(30):
                log.append(1)
                feed.committed({RunId(1)})
                await asyncio.sleep(0)
                log.answers.put_nowait(None)
            seen: list[int] = []
            while len(seen) < 30:
                seen += [event.seq for event in await waiting]
                log.answers.put_nowait(None)
                waiting = asyncio.ensure_future(follower.next())
            waiting.cancel()
            assert seen == list(range(1, 31))

    asyncio.run(scenario())


class Breaking(Log):
    broken = False

    async def read(self, since: int, run: RunId | None, limit: int) -> list[Event]:
        if self.broken:
            raise StoreBroken("away")
        return await super().read(since, run, limit)


def test_a_read_that_fails_tells_every_follower_and_the_next_goes_on() -> None:
    async def scenario() -> None:
        log = Breaking()
        feed = Feed(log.read, log.newest)
        with await feed.follow(0) as follower:
            waiting = asyncio.ensure_future(follower.next())
            assert feed._pumping is not None
            await feed._pumping
            log.append(1)
            log.broken = True
            feed.committed({RunId(1)})
            with pytest.raises(StoreBroken):
                await waiting
            log.broken = False
            assert [event.seq for event in await follower.next()] == [1]
            waiting = asyncio.ensure_future(follower.next())
            log.append(1)
            feed.committed({RunId(1)})
            assert [event.seq for event in await waiting] == [2]

    asyncio.run(scenario())
