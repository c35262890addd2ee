"""What every database must do: the cases of `store.base.Store` and of the named queries.

A database's own test file subclasses `StoreSuite`, names its dialect and opens it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import rows
from moorage.store import sql
from moorage.store.base import Statement, StatementRefused, Store, StoreBroken
from moorage.store.check import Found, check_tables
from moorage.store.history import History
from moorage.store.retention import Limits, Retention
from moorage.store.writer import Writer

STATES = ("queued", "running", "succeeded", "failed")
FINAL = ("succeeded", "failed")

# The store is one per test on purpose: an example only adds to what is there.
grows = settings(
    max_examples=40,
    deadline=None,
    # Each database runs these tests as its own.
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
        HealthCheck.too_slow,
    ],
)
several = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)


class StoreSuite:
    """All cases."""

    dialect: ClassVar[str]

    def open(self, directory: Path) -> Store:
        """The database that belongs to this directory, made where there is none."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = self.open(tmp_path)
        yield store
        store.close()

    # the interface

    def test_what_was_written_is_there_after_opening_again(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        store.write([rows.run(1, message="ünï — 漢字")])
        store.close()
        store = self.open(tmp_path)
        assert store.read("run_by_id", {"id": 1})[0]["message"] == "ünï — 漢字"
        store.close()

    def test_a_batch_that_fails_in_the_middle_leaves_nothing(self, store: Store) -> None:
        with pytest.raises(StatementRefused):
            store.write([rows.run(1), rows.run(2), rows.run(1), rows.run(3)])
        assert store.read("live_runs") == []
        store.write([rows.run(1)])
        assert len(store.read("live_runs")) == 1

    def test_statements_run_in_their_order(self, store: Store) -> None:
        store.write(
            [
                Statement("set_meta", {"key": "epoch", "value": "1"}),
                rows.event(),
                Statement("set_meta", {"key": "epoch", "value": "2"}),
                Statement("set_meta", {"key": "epoch", "value": "3"}),
            ]
        )
        assert store.read("meta", {"key": "epoch"}) == [{"value": "3"}]

    def test_an_empty_batch_is_no_error(self, store: Store) -> None:
        store.write([])

    @pytest.mark.parametrize(
        "statement",
        [
            Statement("no_such_query", {}),
            Statement("insert_event", {"at": 1.0}),
            rows.event(data=["not", "text"]),
            rows.event(data="\ud800"),
            rows.event(run_id=2**63),
            rows.event(run_id="seven"),
            rows.event(kind=None),
            rows.job(1, run_id=99),
        ],
        ids=["query", "missing", "list", "surrogate", "too-big", "type", "null", "foreign-key"],
    )
    def test_an_impossible_statement_is_refused_and_harms_nothing(
        self, store: Store, statement: Statement
    ) -> None:
        with pytest.raises(StatementRefused):
            store.write([rows.event(), statement])
        assert store.read("max_seq") == [{"seq": 0}]
        store.write([rows.event()])

    def test_an_error_does_not_repeat_values(self, store: Store) -> None:
        with pytest.raises(StatementRefused) as refused:
            store.write([rows.event(data="hunter2\ud800")])
        assert "hunter2" not in str(refused.value)

    def test_an_unknown_read_is_refused(self, store: Store) -> None:
        with pytest.raises(StatementRefused, match="nonsense"):
            store.read("nonsense")

    def test_every_read_query_is_valid(self, store: Store) -> None:
        for query in sql.queries(self.dialect).values():
            if query.text.startswith("SELECT"):
                params: dict[str, Any] = dict.fromkeys(query.parameters)
                params |= dict.fromkeys({"keep", "limit", "most"} & params.keys(), 1)
                if "digests" in params:
                    params["digests"] = "[]"
                assert isinstance(store.read(query.name, params), list), query.name

    def test_a_closed_store_says_so(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        store.close()
        store.close()
        with pytest.raises(StoreBroken, match="closed"):
            store.read("nodes")
        with pytest.raises(StoreBroken, match="closed"):
            store.write([rows.event()])

    def test_readers_see_whole_batches_while_a_writer_writes(self, store: Store) -> None:
        stop = threading.Event()
        torn: list[int] = []

        def watch() -> None:
            while not stop.is_set():
                seen = store.read("max_seq")[0]["seq"]
                if seen % 5:
                    torn.append(seen)

        readers = [threading.Thread(target=watch) for _ in range(4)]
        for reader in readers:
            reader.start()
        for _ in range(100):
            store.write([rows.event() for _ in range(5)])
        stop.set()
        for reader in readers:
            reader.join()
        assert torn == []
        assert store.read("max_seq") == [{"seq": 500}]

    @grows
    @given(
        at=st.floats(allow_nan=False, allow_infinity=False),
        number=st.integers(min_value=-(2**63), max_value=2**63 - 1),
        text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    )
    def test_values_come_back_as_they_went(
        self, store: Store, at: float, number: int, text: str
    ) -> None:
        store.write([rows.event(at=at, run_id=number, kind=text)])
        row = store.read("events_since", {"since": 0, "limit": 1000})[-1]
        assert (row["at"], row["run_id"], row["kind"]) == (at, number, text)

    # runs and jobs

    def test_boot_reads_only_what_lives(self, store: Store) -> None:
        store.write(
            [
                rows.node(1),
                rows.run(1, state="succeeded"),
                rows.run(2, state="scheduled"),
                rows.run(3, state="running"),
                rows.job(1, 1, state="succeeded"),
                rows.job(2, 3, state="running"),
                rows.attempt(1),
                rows.attempt(2),
                rows.progress(1, "done"),
            ]
        )
        assert [row["id"] for row in store.read("live_runs")] == [2, 3]
        assert [row["id"] for row in store.read("live_jobs")] == [2]
        assert [row["job_id"] for row in store.read("live_attempts")] == [2]

    def test_updates_change_every_column_they_name(self, store: Store) -> None:
        queries = sql.queries(self.dialect)
        store.write([rows.node(1), rows.run(1), rows.job(1, 1)])
        for name, read in (("update_run", "run_by_id"), ("update_job", "jobs_of_run")):
            # One number serves as text, number and time alike, except where nodes are named.
            changed = {**dict.fromkeys(queries[name].parameters, "1"), "id": 1}
            store.write([Statement(name, changed)])
            [row] = store.read(read, {"id": 1, "run_id": 1})
            assert {str(row[column])[:1] for column in changed} == {"1"}, name

    def test_the_end_of_an_attempt_is_final(self, store: Store) -> None:
        store.write([rows.node(1), rows.run(1), rows.job(1, 1), rows.attempt(1)])
        store.write([rows.progress(1, "done", outcome='{"kind":"exited"}')])
        store.write([rows.progress(1, "running")])
        [row] = store.read("attempts_of_run", {"run_id": 1})
        assert (row["state"], row["outcome"]) == ("done", '{"kind":"exited"}')
        assert row["node"] == "node-1"

    def test_an_attempt_exists_once(self, store: Store) -> None:
        store.write([rows.node(1), rows.run(1), rows.job(1, 1), rows.attempt(1)])
        with pytest.raises(StatementRefused):
            store.write([rows.attempt(1)])

    def test_deleting_a_run_takes_all_but_its_events_and_its_numbers(self, store: Store) -> None:
        store.write([rows.node(4), rows.run(7), rows.job(9, 7), rows.attempt(9, node_id=4)])
        store.write([Statement("insert_run_blob", {"run_id": 7, "digest": "d", "kind": "tree"})])
        gone = [Statement(name, {"id": 7}) for name in ("note_run", "note_jobs", "delete_run")]
        store.write([rows.event(run_id=7, job_id=9), *gone])
        assert store.read("run_by_id", {"id": 7}) == []
        assert store.read("live_jobs") == store.read("live_attempts") == []
        assert store.read("referenced") == []
        assert store.read("max_ids") == [{"run": 7, "job": 9, "node": 4}]
        [event] = store.read("run_events_since", {"run": 7, "since": 0, "limit": 9})
        assert (event["run_name"], event["job_id"]) == ("", 9)

    def test_a_lower_number_that_is_noted_later_changes_nothing(self, store: Store) -> None:
        store.write([rows.run(7), rows.job(9, 7), rows.run(12), rows.job(100, 12), rows.run(2)])
        for run in (12, 7, 2):
            noted = [Statement(name, {"id": run}) for name in ("note_run", "note_jobs")]
            store.write([*noted, Statement("delete_run", {"id": run})])
        assert store.read("max_ids") == [{"run": 12, "job": 100, "node": 0}]

    def test_numbers_of_trimmed_events_are_not_given_out_again(self, store: Store) -> None:
        store.write([rows.event() for _ in range(10)])
        trim = {"key": "events_trimmed", "value": "10"}
        store.write([Statement("raise_mark", trim), Statement("trim_events", {"seq": 10})])
        assert store.read("max_seq") == [{"seq": 10}]
        assert store.read("events_trimmed") == [{"seq": 10}]
        store.write([rows.event()])
        [event] = store.read("events_since", {"since": 0, "limit": 9})
        assert event["seq"] == 11

    def test_what_is_old_is_found_and_trimmed(self, store: Store) -> None:
        store.write([rows.node(1)])
        for number in range(1, 60):
            end = {"state": "succeeded", "ended_at": 100.0 + number}
            store.write([rows.run(number, **end), rows.job(number, number, **end)])
            store.write([rows.attempt(number), rows.event(run_id=number)])
        store.write(
            [
                Statement("insert_request", {"user": "a", "id": str(n), "runs": "[]", "at": n})
                for n in range(5)
            ]
        )
        limits = Limits(run_age=850.0, runs=55, event_age=1.0, events=20, request_age=997.0)
        writer = Writer(store)
        try:
            retention = Retention(store, writer, limits)
            found = [run for some in retention.runs(1000.0) for run in some]
            assert found == list(range(1, 50))
            [step] = retention.going(found[:3])
            assert step.output == {1: ["1.1.0", "2.1.0", "3.1.0"]}
            assert retention.expired_events(500.0) == retention.trim_events(500.0) == 59
            assert retention.trim_events(500.0) == 0
            assert retention.expired_requests(1000.0) == retention.forget_requests(1000.0) == 3
        finally:
            writer.close()
        assert [event.kind for event in History(store).events().events] == ["feed.trimmed"]

    def test_damage_is_found_and_every_repair_can_be_carried_out(self, store: Store) -> None:
        store.write(
            [
                rows.node(1, resources='{"cpus":1,"arch":"x86","memory":1,"disk":1}'),
                rows.node(2, resources='{"cpus":1,"arch":"x86","memory":1,"disk":1}'),
                rows.run(1, state="failed"),
                rows.job(1, 1, state="running", attempt=1),
                rows.run(2, state="running", ended_at=5.0),
                rows.job(2, 2, state="succeeded"),
                rows.attempt(2, 3),
                rows.run(3, state="running"),
                rows.job(3, 3, state="running", attempt=1, node_id=2),
                rows.attempt(3),
                rows.run(4, state="queued"),
                rows.job(4, 4),
                rows.attempt(4, state="done"),
                rows.event(run_id=99, job_id=99),
                Statement("insert_request", {"user": "a", "id": "r", "runs": "[", "at": 1.0}),
                rows.pack("p"),
                rows.blob("d", "p", start=100),
            ]
        )
        found = [one for _ in range(3) for one in self._repaired(store)]
        assert len(found) >= 12
        assert list(check_tables(store, 1000.0)) == []

    def _repaired(self, store: Store) -> list[Found]:
        found = list(check_tables(store, 1000.0))
        store.write([statement for one in found for statement in one.repair])
        return found

    def test_numbers_begin_at_nothing(self, store: Store) -> None:
        assert store.read("max_ids") == [{"run": 0, "job": 0, "node": 0}]

    def test_a_name_means_its_newest_run(self, store: Store) -> None:
        store.write([rows.run(n, name="train") for n in (1, 2, 3)])
        assert store.read("run_by_name", {"name": "train"})[0]["id"] == 3
        assert store.read("run_by_name", {"name": "other"}) == []

    def test_a_request_is_remembered_once_for_each_user(self, store: Store) -> None:
        def request(user: str) -> Statement:
            return Statement(
                "insert_request", {"user": user, "id": "one", "runs": user, "at": 1.0}
            )

        store.write([request("ann"), request("bob")])
        assert store.read("request", {"user": "ann", "id": "one"}) == [{"runs": "ann"}]
        assert store.read("request", {"user": "ann", "id": "two"}) == []
        with pytest.raises(StatementRefused):
            store.write([request("ann")])

    def test_a_tree_used_twice_by_a_run_is_one_reference(self, store: Store) -> None:
        uses = Statement("insert_run_blob", {"run_id": 1, "digest": "d", "kind": "tree"})
        store.write([rows.run(1), uses, uses])
        assert store.read("referenced") == [{"digest": "d", "kind": "tree"}]

    @several
    @given(
        runs=st.lists(st.tuples(st.sampled_from(STATES), st.sampled_from("ab")), max_size=12),
        active=st.booleans(),
        state=st.none() | st.sampled_from(STATES),
        name=st.none() | st.sampled_from("ab"),
        limit=st.integers(1, 5),
    )
    def test_pages_of_runs_follow_a_plain_model(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        runs: list[tuple[str, str]],
        active: bool,
        state: str | None,
        name: str | None,
        limit: int,
    ) -> None:
        newest = {name: number for number, (_, name) in enumerate(runs)}
        known = [  # a name that is in use is taken
            (number + 1, state if number == newest[name] or state in FINAL else "failed", name)
            for number, (state, name) in enumerate(runs)
        ]
        expected = [
            number
            for number, its_state, its_name in reversed(known)
            if state in (None, its_state)
            and name in (None, its_name)
            and not (active and its_state in FINAL)
        ]
        store = self.open(tmp_path_factory.mktemp("page"))
        try:
            store.write([rows.run(number, state=s, name=n) for number, s, n in known])
            found: list[int] = []
            cursor = None
            while found == [] or cursor is not None:
                page = History(store).runs(
                    active=active, state=state, name=name, limit=limit, cursor=cursor
                )
                assert page.total == len(expected)
                assert len(page.runs) <= limit
                found += [run.id for run in page.runs]
                cursor = page.cursor
                if not page.runs:
                    break
            assert found == expected
        finally:
            store.close()

    # nodes, events, tokens

    def test_a_node_is_one_row_however_often_it_connects(self, store: Store) -> None:
        store.write([rows.node(1), rows.node(1, state="down", last_seen=200.0)])
        [row] = store.read("nodes")
        assert (row["state"], row["last_seen"]) == ("down", 200.0)

    def test_two_nodes_cannot_share_a_name(self, store: Store) -> None:
        with pytest.raises(StatementRefused):
            store.write([rows.node(1, name="same"), rows.node(2, name="same")])

    def test_events_are_numbered_in_order_and_pages_continue(self, store: Store) -> None:
        store.write([rows.node(1), rows.run(1), rows.run(2)])
        store.write([rows.event(run_id=1 + n % 2, node_id=1) for n in range(6)])
        first = store.read("events_since", {"since": 0, "limit": 4})
        assert [row["seq"] for row in first] == [1, 2, 3, 4]
        rest = store.read("events_since", {"since": 4, "limit": 4})
        assert [(row["seq"], row["run_name"], row["node"]) for row in rest] == [
            (5, "run-1", "node-1"),
            (6, "run-2", "node-1"),
        ]
        of_one = store.read("run_events_since", {"run": 2, "since": 2, "limit": 9})
        assert [row["seq"] for row in of_one] == [4, 6]
        assert store.read("max_seq") == [{"seq": 6}]

    def test_tokens_are_known_until_deleted(self, store: Store) -> None:
        owner = {"kind": "user", "subject": "ada", "server": "s"}
        token = {"hash": "h", "created_at": 1.0, **owner}
        store.write([Statement("insert_token", token)])
        assert store.read("tokens") == [token]
        assert store.read("token", {"hash": "h"}) == [owner]
        store.write([Statement("delete_token", {"hash": "h"})])
        assert store.read("tokens") == []

    def test_fleets_hosts_and_their_nodes_are_known_until_they_are_gone(
        self, store: Store
    ) -> None:
        store.write([rows.node(1), rows.fleet("lab"), rows.host("lab", 0), rows.host("lab", 1)])
        placed = {"id": 1, "fleet": "lab", "hostname": "h0", "draining": 1, "gone": 0}
        known = rows.host("lab", 0, state="ready", node_id=1, facts='{"cpus":2}')
        store.write([known, Statement("place_node", placed)])
        assert store.read("fleets") == [rows.fleet("lab").params]
        assert store.read("hosts") == [known.params, rows.host("lab", 1).params]
        assert store.read("node_places") == [placed]
        gone = [Statement("delete_host", {"fleet": "lab", "num": n}) for n in (0, 1)]
        store.write([*gone, Statement("delete_fleet", {"name": "lab"})])
        assert store.read("fleets") == store.read("hosts") == []

    def test_a_node_has_its_newest_token_and_none_when_it_is_gone(self, store: Store) -> None:
        node = {"kind": "node", "subject": "lab-0", "server": "", "created_at": 1.0}
        other = node | {"subject": "lab-1", "hash": "o"}
        tokens = [node | {"hash": "a"}, node | {"hash": "b"}, other]
        store.write([Statement("insert_token", token) for token in tokens])
        newest = {"subject": "lab-0", "hash": "b"}
        store.write([Statement("delete_older_node_tokens", newest)])
        assert [row["hash"] for row in store.read("tokens")] == ["b", "o"]
        store.write([Statement("delete_node_tokens", {"subject": "lab-0"})])
        assert [row["hash"] for row in store.read("tokens")] == ["o"]

    # the index of content

    def test_the_first_of_two_uploads_stays_and_counts_as_new(self, store: Store) -> None:
        store.write([rows.pack("p1"), rows.blob("d", "p1")])
        store.write([rows.pack("p2"), rows.blob("d", "p2", added_at=300.0)])
        [row] = store.read("blobs", {"digests": '["d"]'})
        assert (row["pack"], row["added_at"]) == ("p1", 300.0)

    def test_many_blobs_are_looked_up_at_once(self, store: Store) -> None:
        store.write([rows.pack("p"), rows.blob("a", "p"), rows.blob("b", "p", added_at=500.0)])
        found = store.read("blobs", {"digests": '["b","c","a"]'})
        assert sorted(row["digest"] for row in found) == ["a", "b"]
        to_note = store.read("blobs_to_note", {"digests": '["b","c","a"]', "since": 200.0})
        assert {row["digest"]: row["added_at"] for row in to_note} == {"c": None, "a": 100.0}

    def test_a_blob_relied_on_since_is_not_deleted(self, store: Store) -> None:
        store.write([rows.pack("p"), rows.blob("a", "p"), rows.blob("b", "p")])
        store.write([Statement("touch_blob", {"digest": "a", "added_at": 300.0})])
        assert [row["digest"] for row in store.read("old_blobs", {"before": 200.0})] == ["b"]
        for digest in "ab":
            gone = {"digest": digest, "pack": "p", "before": 200.0}
            store.write([Statement("delete_blob", gone)])
        assert [row["digest"] for row in store.read("blobs_of_pack", {"pack": "p"})] == ["a"]

    def test_a_pack_with_blobs_cannot_be_deleted(self, store: Store) -> None:
        store.write([rows.pack("old"), rows.blob("a", "old"), rows.pack("new")])
        drop = Statement("delete_pack", {"id": "old"})
        with pytest.raises(StatementRefused):
            store.write([drop])
        move = {"digest": "a", "pack": "new", "start": 1048, "old_pack": "old"}
        store.write([Statement("move_blob", move), drop])
        [row] = store.read("blobs", {"digests": '["a"]'})
        assert (row["pack"], row["start"]) == ("new", 1048)
        assert [row["id"] for row in store.read("packs")] == ["new"]

    def test_sparse_packs_are_those_that_are_mostly_dead(self, store: Store) -> None:
        store.write([rows.pack("empty"), rows.pack("full"), rows.pack("sparse", bytes=1000)])
        store.write([rows.blob("a", "full"), rows.blob("b", "sparse")])
        found = store.read("sparse_packs")
        assert [(row["id"], row["live"]) for row in found] == [("empty", 0), ("sparse", 148)]
