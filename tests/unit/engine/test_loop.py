from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from moorage.core.reactor.submit import SLICE
from moorage.engine import boot
from moorage.engine.links import NotConnected
from moorage.engine.loop import Engine
from moorage.engine.testing import FakeAgent, hello
from moorage.errors import Conflict, InvalidInput, NotFound
from moorage.ids import NodeId, RunId
from moorage.protocol.agent import DropLogs, Held, Outcome, Start, Stop
from moorage.protocol.api import RunRequest
from moorage.specs.resources import Cpu, Range, Resources
from moorage.specs.task import Task
from moorage.store.base import Params, Row, Statement, StoreBroken
from moorage.store.sqlite import SqliteStore, open_sqlite
from moorage.store.writer import Writer

Scenario = Callable[[Engine], Awaitable[None]]


async def nothing_missing(_: Sequence[RunRequest]) -> None:
    return


def task(name: str | None = None, cpus: float = 1) -> RunRequest:
    resources = Resources(cpu=Cpu(count=Range(min=cpus)))
    return RunRequest(Task(name=name, commands=["true"], resources=resources))


async def submit(
    engine: Engine, *runs: RunRequest, request_id: str = "r1", user: str = "me"
) -> list[int]:
    refs = await engine.submit(runs or [task()], user, request_id, nothing_missing)
    return [ref.id for ref in refs]


def run(path: Path, scenario: Scenario) -> None:
    """One life of an engine over the database at `path`."""

    async def life() -> None:
        engine = boot.start(store, writer, "test")
        try:
            async with asyncio.timeout(60):
                await scenario(engine)
        finally:
            engine.close()

    store = open_sqlite(path / "test.db")
    writer = Writer(store)
    try:
        asyncio.run(life())
    finally:
        writer.close()
        store.close()


async def state(engine: Engine, number: int) -> str:
    """Of a run, once all that was decided is durable."""
    with await engine.feed.follow(0, RunId(number)) as follower:
        await follower.next()
    return engine.history.summary(str(number)).state


async def until(engine: Engine, number: int, wanted: str) -> None:
    with await engine.feed.follow(None, RunId(number)) as follower:
        while engine.history.summary(str(number)).state != wanted:
            await follower.next()


def test_a_run_from_submit_to_success(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        agent = FakeAgent(engine)
        welcome = await agent.connect()
        assert welcome.epoch == engine.epoch
        [number] = await submit(engine)
        key = await agent.start()
        agent.report(Held(key, "running"))
        await until(engine, number, "running")
        agent.finish(key)
        await until(engine, number, "succeeded")
        assert engine.cluster.jobs == {}

    run(tmp_path, scenario)


def test_a_line_on_a_full_node_and_a_server_that_starts_anew(tmp_path: Path) -> None:
    async def first(engine: Engine) -> None:
        agent = FakeAgent(engine, cpus=1)
        await agent.connect()
        numbers = await submit(engine, *[task() for _ in range(8)])
        agent.finish(await agent.start())
        assert await agent.start() == "2.1.0"
        while not isinstance(message := await agent.next(), Start) or not message.wait:
            pass
        assert [message.launch.job, *numbers] == [3, *range(1, 9)]
        waiting = engine.history.summary("3")
        assert (waiting.state, waiting.node) == ("queued", "")
        assert engine.history.run("3").jobs[0].attempts == []

    async def again(engine: Engine) -> None:
        agent = FakeAgent(engine, cpus=1)
        await agent.connect(Held("2.1.0", "running"))
        key = "2.1.0"
        for number in range(2, 9):
            agent.finish(key)
            await until(engine, number, "succeeded")
            if number < 8:
                key = await agent.start()
                assert key == f"{number + 1}.1.0"
        assert engine.cluster.jobs == {}
        assert not engine.cluster.lines

    run(tmp_path, first)
    run(tmp_path, again)


def test_nothing_is_sent_before_it_is_durable(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        agent = FakeAgent(engine)
        await agent.connect()
        await submit(engine)
        message = await agent.next()
        assert isinstance(message, Start)
        [row] = engine.store.read("attempts_of_run", {"run_id": 1})
        assert row["state"] == "assigned"

    run(tmp_path, scenario)


def test_equal_request_ids_make_one_run(tmp_path: Path) -> None:
    async def first(engine: Engine) -> None:
        replies = await asyncio.gather(*(submit(engine, task(), task()) for _ in range(50)))
        assert replies == [[1, 2]] * 50
        assert await submit(engine) == [1, 2]
        assert await submit(engine, request_id="r2") == [3]

    async def second(engine: Engine) -> None:
        assert await submit(engine) == [1, 2]
        assert await submit(engine, request_id="r3") == [4]

    run(tmp_path, first)
    run(tmp_path, second)


def test_a_repeated_request_makes_nothing_anew_when_its_runs_were_deleted(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        [number, other] = await submit(engine, task(), task())
        await engine.cancel(RunId(number), abort=False)
        await engine.delete(RunId(number))
        assert await submit(engine, task(), task()) == [number, other]
        assert await submit(engine, task(), user="bob") == [other + 1]

    run(tmp_path, scenario)


def test_a_refused_submit_changes_nothing_and_may_be_repeated(tmp_path: Path) -> None:
    async def refuse(_: Sequence[RunRequest]) -> None:
        raise InvalidInput("tree is missing")

    async def scenario(engine: Engine) -> None:
        with pytest.raises(InvalidInput, match="missing"):
            await engine.submit([task()], "me", "r1", refuse)
        await submit(engine, task("mine"))
        with pytest.raises(Conflict):
            await submit(engine, task(), task("mine"), request_id="r2")
        assert engine.history.runs().total == 1

    run(tmp_path, scenario)


def test_a_restart_goes_on(tmp_path: Path) -> None:
    epochs: list[int] = []

    async def first(engine: Engine) -> None:
        epochs.append(engine.epoch)
        agent = FakeAgent(engine, cpus=1)
        await agent.connect()
        await submit(engine, task("first"), task("second"))
        assert await agent.start() == "1.1.0"

    async def second(engine: Engine) -> None:
        epochs.append(engine.epoch)
        assert await state(engine, 1) == "starting"
        agent = FakeAgent(engine, cpus=1)
        await agent.connect(Held("1.1.0", "running"))
        await until(engine, 1, "running")
        agent.finish("1.1.0")
        assert await agent.start() == "2.1.0"
        await until(engine, 1, "succeeded")

    run(tmp_path, first)
    run(tmp_path, second)
    assert epochs == [1, 2]


def test_a_start_that_went_missing_is_sent_again(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        agent = FakeAgent(engine)
        await agent.connect()
        await submit(engine)
        await agent.start()
        agent.disconnect()
        await agent.connect()
        assert await agent.start() == "1.1.0"

    run(tmp_path, scenario)


def test_what_an_old_connection_says_is_dropped(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        older, newer = FakeAgent(engine), FakeAgent(engine)
        await older.connect()
        await submit(engine)
        key = await older.start()
        await newer.connect(Held(key, "running"))
        older.finish(key, exit_code=1)
        older.disconnect()
        await until(engine, 1, "running")
        assert engine.cluster.nodes[engine.cluster.node_names["n1"]].up
        newer.finish(key)
        await until(engine, 1, "succeeded")

    run(tmp_path, scenario)


def test_a_greeting_that_was_late_on_its_way_is_refused(tmp_path: Path) -> None:
    """What the agent held when it sent it is no longer true: the attempt would count as lost, and
    a next one would begin beside it."""

    async def scenario(engine: Engine) -> None:
        late = engine.links.accept()
        agent = FakeAgent(engine)
        await agent.connect()
        [number] = await submit(engine)
        agent.report(Held(await agent.start(), "running"))
        await until(engine, number, "running")
        with pytest.raises(NotConnected, match="newer"):
            await engine.hello(hello("n1"), late)
        assert engine.cluster.runs[RunId(number)].state == "running"
        assert engine.links.connected() == [NodeId(1)]

    run(tmp_path, scenario)


def test_cancel_and_delete(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        agent = FakeAgent(engine)
        await agent.connect()
        await submit(engine)
        key = await agent.start()
        with pytest.raises(Conflict):
            await engine.delete(RunId(1))
        await engine.cancel(RunId(1), False)
        stop = await agent.next()
        assert isinstance(stop, Stop)
        assert stop.key == key
        agent.report(Held(key, "done", outcome=Outcome("stopped")))
        await until(engine, 1, "cancelled")
        await engine.delete(RunId(1))
        with pytest.raises(NotFound):
            engine.history.summary("1")
        while not isinstance(drop := await agent.next(), DropLogs):
            pass
        assert drop.keys == [key]
        with pytest.raises(NotFound):
            await engine.cancel(RunId(1), False)

    run(tmp_path, scenario)


def test_a_node_is_told_what_output_to_delete_until_it_has_done_so(tmp_path: Path) -> None:
    async def delete(engine: Engine) -> None:
        agent = FakeAgent(engine)
        await agent.connect()
        await submit(engine)
        agent.finish(await agent.start())
        await until(engine, 1, "succeeded")
        agent.disconnect()
        await engine.delete(RunId(1))

    async def restart(engine: Engine) -> None:
        agent = FakeAgent(engine)
        await agent.connect()
        assert await agent.next() == DropLogs(["1.1.0"])

    async def answer(engine: Engine) -> None:
        agent = FakeAgent(engine)
        await agent.connect()
        assert await agent.next() == DropLogs(["1.1.0"])
        assert agent.link is not None
        engine.dropped(agent.link, ["1.1.0"])

    async def once_more(engine: Engine) -> None:
        agent = FakeAgent(engine)
        await agent.connect()
        await submit(engine, request_id="r2")
        assert isinstance(await agent.next(), Start)

    run(tmp_path, delete)
    run(tmp_path, restart)
    run(tmp_path, answer)
    run(tmp_path, once_more)


def test_a_retry_waits_for_its_timer(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        from moorage.specs.retry import Retry

        agent = FakeAgent(engine)
        await agent.connect()
        request = RunRequest(Task(commands=["false"], retry=Retry()))
        await submit(engine, request)
        agent.finish(await agent.start(), exit_code=3)
        assert await agent.start() == "1.2.0"

    run(tmp_path, scenario)


class Breaking:
    """A store whose disk goes bad when told to."""

    def __init__(self, inner: SqliteStore) -> None:
        self.inner = inner
        self.bad = False

    def write(self, batch: Sequence[Statement]) -> None:
        if self.bad:
            raise StoreBroken("the disk is full")
        self.inner.write(batch)

    def read(self, query: str, params: Params | None = None) -> list[Row]:
        return self.inner.read(query, params)

    def close(self) -> None:
        self.inner.close()


def test_a_broken_store_stops_the_engine(tmp_path: Path) -> None:
    async def life() -> None:
        engine = boot.start(store, writer, "test")
        agent = FakeAgent(engine)
        await agent.connect()
        store.bad = True
        async with asyncio.timeout(30):
            with pytest.raises(StoreBroken, match="disk is full"):
                await submit(engine)
            await engine.stopped.wait()
        assert engine.failure is not None
        with pytest.raises(StoreBroken):
            await submit(engine, request_id="r2")
        with pytest.raises(EOFError):
            while True:
                assert not isinstance(await agent.next(), Start)
        agent.disconnect()

    store = Breaking(open_sqlite(tmp_path / "test.db"))
    writer = Writer(store)
    try:
        asyncio.run(life())
    finally:
        writer.close()
        store.close()


def test_a_defect_stops_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(engine: Engine) -> None:
        agent = FakeAgent(engine)
        await agent.connect()
        await submit(engine)
        key = await agent.start()

        def defect(*_: object) -> None:
            raise KeyError(1)

        monkeypatch.setattr("moorage.core.reactor.on_report", defect)
        with pytest.raises(KeyError):
            agent.finish(key)
        await engine.stopped.wait()

    run(tmp_path, scenario)


def test_others_are_served_while_many_runs_are_accepted_and_none_of_them_starts_before(
    tmp_path: Path,
) -> None:
    async def scenario(engine: Engine) -> None:
        agent = FakeAgent(engine, cpus=1)
        await agent.connect()
        many = [task() for _ in range(5 * SLICE)] + [task(name="last")]
        accepting = asyncio.ensure_future(submit(engine, *many, request_id="many"))
        while not engine.cluster.jobs:
            assert not accepting.done()
            await asyncio.sleep(0)
        assert len(engine.cluster.jobs) == SLICE
        same = asyncio.ensure_future(submit(engine, task(name="last"), request_id="same-name"))
        other = asyncio.ensure_future(submit(engine, task(), request_id="other"))
        while len(engine.cluster.jobs) < len(many):
            assert not engine.cluster.hosts, "none starts before all are accepted"
            await asyncio.sleep(0)
        numbers = await accepting
        with pytest.raises(Conflict):
            await same
        assert [*numbers, *await other] == list(range(1, len(many) + 2))
        assert numbers == await submit(engine, *many, request_id="many")
        assert engine.history.runs().total == len(many) + 1
        assert await agent.start() == "1.1.0"

    run(tmp_path, scenario)


def test_many_runs_are_refused_together(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        many = [task(name=f"n{number}") for number in range(3 * SLICE)]
        await FakeAgent(engine).connect()
        with pytest.raises(InvalidInput):
            await submit(engine, *many, task(cpus=1000), request_id="too-large")
        assert not engine.cluster.names
        assert engine.history.runs().total == 0
        assert len(await submit(engine, *many, request_id="all-fit")) == len(many)

    run(tmp_path, scenario)
