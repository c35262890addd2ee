"""Group commit: order, acknowledgement, refusal, the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import rows
from moorage.store.base import Params, Row, Statement, StatementRefused, Store, StoreBroken
from moorage.store.sqlite import open_sqlite
from moorage.store.writer import Writer


class Recorder:
    """Passes on to a store, remembers each transaction, and holds writes back on request."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.groups: list[int] = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def write(self, batch: Sequence[Statement]) -> None:
        self.entered.set()
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        self.groups.append(len(batch))
        self.store.write(batch)

    def read(self, query: str, params: Params | None = None) -> list[Row]:
        return self.store.read(query, params)

    def close(self) -> None:
        self.store.close()

    def hold(self, writer: Writer) -> Future[None]:
        """Make the writer busy, so that what follows is queued; ends when `gate` is set."""
        self.gate.clear()
        self.entered.clear()
        first = writer.submit([rows.event("first")])
        assert self.entered.wait(30)
        return first


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Recorder]:
    store = Recorder(open_sqlite(tmp_path / "moorage.db"))
    yield store
    store.close()


@pytest.fixture
def writer(store: Recorder) -> Iterator[Writer]:
    writer = Writer(store)
    yield writer
    store.gate.set()
    writer.close()


def kinds(store: Store) -> list[str]:
    return [row["kind"] for row in store.read("events_since", {"since": 0, "limit": 100_000})]


def test_what_is_queued_shares_a_transaction(store: Recorder, writer: Writer) -> None:
    futures = [store.hold(writer)]
    futures += [writer.submit([rows.event(f"{n}"), rows.event(f"{n}b")]) for n in range(50)]
    assert not any(future.done() for future in futures)
    store.gate.set()
    for future in futures:
        future.result(30)
    assert store.groups == [1, 100]


def test_futures_resolve_in_order_after_the_commit(store: Recorder, writer: Writer) -> None:
    seen: list[tuple[int, int]] = []
    store.hold(writer)
    for number in range(5):
        future = writer.submit([rows.event()])
        future.add_done_callback(
            lambda _, number=number: seen.append((number, store.read("max_seq")[0]["seq"]))
        )
    store.gate.set()
    writer.submit([]).result(30)
    assert seen == [(number, 6) for number in range(5)]


def test_a_refused_batch_fails_alone_and_whole(store: Recorder, writer: Writer) -> None:
    store.hold(writer)
    before = writer.submit([rows.event("before")])
    refused = writer.submit([rows.event("half"), rows.event(data=None)])
    after = writer.submit([rows.event("after")])
    store.gate.set()
    before.result(30)
    after.result(30)
    with pytest.raises(StatementRefused):
        refused.result(30)
    assert kinds(store) == ["first", "before", "after"]
    assert writer.broken is None


@pytest.mark.parametrize("error", [StoreBroken("the disk is full"), RuntimeError("unforeseen")])
def test_any_other_error_is_the_end(store: Recorder, writer: Writer, error: Exception) -> None:
    first = store.hold(writer)
    queued = [writer.submit([rows.event()]) for _ in range(3)]
    store.error = error
    store.gate.set()
    later = writer.submit([rows.event()])
    for future in (first, *queued, later):
        with pytest.raises(StoreBroken, match=str(error)):
            future.result(30)
    store.error = None
    with pytest.raises(StoreBroken, match=str(error)):
        writer.submit([rows.event()]).result(30)
    assert str(error) in str(writer.broken)
    assert kinds(store) == []


def test_closing_commits_what_is_queued(store: Recorder, writer: Writer) -> None:
    store.hold(writer)
    futures = [writer.submit([rows.event()]) for _ in range(20)]
    closer = threading.Thread(target=writer.close)
    closer.start()
    store.gate.set()
    closer.join(30)
    assert all(future.done() and future.exception() is None for future in futures)
    writer.close()
    with pytest.raises(StoreBroken, match="closed"):
        writer.submit([rows.event()]).result(30)
    assert len(kinds(store)) == 21


def test_a_large_queue_is_divided_but_no_batch_is(store: Recorder, writer: Writer) -> None:
    store.hold(writer)
    batch = [rows.event()] * 4_000
    futures = [writer.submit(batch) for _ in range(4)]
    store.gate.set()
    for future in futures:
        future.result(30)
    assert store.groups == [1, 12_000, 4_000]


def test_it_can_be_awaited(writer: Writer) -> None:
    async def main() -> None:
        await asyncio.wait_for(asyncio.wrap_future(writer.submit([rows.event()])), 30)
        with pytest.raises(StatementRefused):
            await asyncio.wrap_future(writer.submit([Statement("nothing", {})]))

    asyncio.run(main())


@settings(max_examples=30, deadline=None)
@given(
    batches=st.lists(
        st.tuples(st.lists(st.integers(0, 30), max_size=4), st.booleans()), max_size=15
    )
)
def test_the_outcome_is_that_of_one_batch_after_the_other(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[list[int], bool]]
) -> None:
    """Tokens may exist once: batches refuse each other depending on their order. Some are waited
    for, so that groups of every size occur."""
    store = open_sqlite(tmp_path_factory.mktemp("model") / "moorage.db")
    writer = Writer(store)
    try:
        futures = []
        for tokens, wait in batches:
            future = writer.submit([_token(number) for number in tokens])
            futures.append(future)
            if wait:
                future.exception(30)
        model: list[str] = []
        for (tokens, _), future in zip(batches, futures, strict=True):
            names = [f"{number:02}" for number in tokens]
            possible = len(set(names)) == len(names) and not set(names) & set(model)
            assert (future.exception(30) is None) == possible
            model += names if possible else []
        assert [row["hash"] for row in store.read("tokens")] == sorted(model)
    finally:
        writer.close()
        store.close()


def _token(number: int) -> Statement:
    owner = {"kind": "user", "subject": "ada", "server": ""}
    params = {"hash": f"{number:02}", "created_at": 0.0, **owner}
    return Statement("insert_token", params)
