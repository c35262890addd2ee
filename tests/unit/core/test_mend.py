"""A server starts from tables that lack something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from moorage.core.effects import Emit, Send
from moorage.core.job import Failed, Queued, ranks_of
from moorage.core.reactor import on_boot, on_hello
from moorage.protocol.agent import Held, Hello, Isolation, NodeResources, Outcome, Stop
from moorage.specs.retry import Retry
from sim.tables import Tables


@pytest.fixture
def tables() -> Iterator[Tables]:
    with closing(Tables()) as made:
        yield made


def gang(desk: Any, tables: Tables, say: Any, **fields: Any) -> Any:
    """A job that runs on a, b and c; d has nothing."""
    effects = [effect for name in "abcd" for effect in desk.hello(node=name)]
    effects += desk.submit(nodes=3, **fields)
    effects += desk.schedule()
    tables.apply(effects, desk.now)
    (job,) = desk.cluster.jobs.values()
    for rank, found in enumerate(ranks_of(job.state)):
        tables.apply(desk.report(say.running(job.rank_key(rank)), node=found.node), desk.now)
    return job


def again(desk: Any, tables: Tables) -> list[Any]:
    desk.cluster = tables.cluster()
    effects = on_boot(desk.cluster, desk.now)
    tables.apply(effects, desk.now)
    return effects


def greets(desk: Any, tables: Tables, node: str, *held: Held) -> list[str]:
    """The keys that it is told to stop."""
    has = NodeResources(4, "x86", 2**34, 10**11)
    hello = Hello(1, "0.1", node, "boot-1", has, Isolation(), [], list(held))
    effects = on_hello(desk.cluster, hello, desk.now)
    tables.apply(effects, desk.now)
    sends = [effect.message for effect in effects if isinstance(effect, Send)]
    return [message.key for message in sends if isinstance(message, Stop)]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_rank_without_a_row_is_lost_and_ends_the_others(desk, say, tables, rank):
    gang(desk, tables, say)
    tables.connection.execute("DELETE FROM attempts WHERE rank = ?", (rank,))
    effects = again(desk, tables)
    told = [effect for effect in effects if isinstance(effect, Emit)]
    assert [(e.kind, e.data["rank"]) for e in told] == [
        ("rank.unknown", rank),
        ("rank.ended", rank),
    ]
    job = desk.job()
    assert job.state.cause == rank
    for number, node in enumerate("abc"):
        key = f"1.1.{number}"
        assert greets(desk, tables, node, say.running(key)) == [key]
    over = [Held(f"1.1.{n}", "done", outcome=Outcome("aborted")) for n in range(3)]
    for number in range(3):
        tables.apply(desk.report(over[number], node=number + 1), desk.now)
    assert isinstance(job.state, Failed)
    assert job.state.ending.reason == "lost"
    assert f"rank {rank} on node" in job.state.ending.message
    assert all(not node.claims and not node.used_millicpus for node in desk.cluster.nodes.values())
    assert tables.cluster().jobs == {}


def test_it_is_begun_again_where_that_is_wanted(desk, say, tables):
    gang(desk, tables, say, retry=Retry(on_events=["interruption"]))
    tables.connection.execute("DELETE FROM attempts WHERE rank > 0")
    again(desk, tables)
    greets(desk, tables, "a", say.running("1.1.0"))
    tables.apply(desk.report(Held("1.1.0", "done", outcome=Outcome("aborted"))), desk.now)
    assert isinstance(desk.job().state, Queued)
    assert desk.job().state.attempt == 2
    rebuilt = tables.cluster()
    assert rebuilt.jobs == desk.cluster.jobs
    assert on_boot(rebuilt, desk.now) == []


def test_what_lacks_nothing_is_left_alone(desk, say, tables):
    gang(desk, tables, say)
    assert again(desk, tables) == []


def test_one_with_more_rows_than_nodes_is_queued(desk, say, tables):
    gang(desk, tables, say)
    columns = "job_id, attempt, {}, node_id, state, gpus, assigned_at"
    tables.connection.execute(
        f"INSERT INTO attempts ({columns.format('rank')})"
        f" SELECT {columns.format('3')} FROM attempts WHERE rank = 0"
    )
    assert again(desk, tables) == []
    assert isinstance(desk.job().state, Queued)
