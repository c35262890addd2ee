"""A sound store passes; each way of damaging one is found, and its repair leaves a sound one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest
from backports import zstd
from blake3 import blake3

from contract import rows
from moorage.protocol import packs, tree
from moorage.protocol.api import NodeState
from moorage.store.base import Statement
from moorage.store.blobs import Blobs
from moorage.store.check import NUMBERS, Found, check_tables
from moorage.store.leader import Identity
from moorage.store.postgres import open_postgres
from moorage.store.sqlite import SqliteStore, open_sqlite
from moorage.store.writer import Writer
from postgres import Postgres

NOW = 5000.0
DIGEST = "ab" * 32
OK = {"resources": '{"cpus":4,"arch":"x86","memory":1,"disk":1}'}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = open_sqlite(tmp_path / "moorage.db")
    store.write(
        [
            rows.node(1, **OK),
            rows.node(2, **OK),
            # 1 ended, 2 runs, 3 is queued after one attempt, 4 is a schedule, 5 is in line
            rows.run(1, state="succeeded", ended_at=300.0),
            rows.job(1, 1, state="succeeded", attempt=1, node_id=1, ended_at=300.0),
            rows.attempt(1),
            rows.progress(1, "done", ended_at=300.0),
            rows.run(2, state="running"),
            rows.job(2, 2, state="running", attempt=1, node_id=1),
            rows.attempt(2, state="running"),
            rows.run(3),
            rows.job(3, 3, attempt=1),
            rows.attempt(3),
            rows.progress(3, "done", ended_at=200.0),
            rows.run(4, state="scheduled"),
            rows.run(5),
            rows.job(5, 5),
            rows.attempt(5, state="prefilled"),
            rows.event(run_id=5, job_id=5),
            Statement(
                "insert_request",
                {"user": "ada", "id": "r", "runs": '[{"id":5,"name":"run-5"}]', "at": 1.0},
            ),
        ]
    )
    yield store
    store.close()


def raw(store: SqliteStore, text: str, **params: Any) -> None:
    store._writer.execute("PRAGMA foreign_keys = OFF")
    store._writer.execute(text, params)
    store._writer.execute("PRAGMA foreign_keys = ON")


def problems(store: SqliteStore) -> list[str]:
    return [found.finding.problem for found in check_tables(store, NOW)]


def repair(store: SqliteStore) -> None:
    for _ in range(2):  # an end that is repaired may leave a run to be ended
        store.write([s for found in check_tables(store, NOW) for s in found.repair])


def test_a_sound_store_has_no_problems(store: SqliteStore) -> None:
    assert problems(store) == []


@pytest.mark.parametrize("state", get_args(NodeState))
def test_a_node_may_be_in_any_state_that_nodes_have(store: SqliteStore, state: str) -> None:
    raw(store, "UPDATE nodes SET state = :state WHERE id = 1", state=state)
    assert problems(store) == []


def test_an_epoch_that_is_repaired_is_beyond_those_that_agents_know(store: SqliteStore) -> None:
    store.write([Statement("set_meta", {"key": "epoch", "value": "x"})])
    now = 1_800_000_000.0
    store.write([s for found in check_tables(store, now) for s in found.repair])
    [row] = store.read("meta", {"key": "epoch"})
    a_year_of_restores = 365 * 86_400 * 1000
    assert int(row["value"]) > a_year_of_restores


@pytest.mark.parametrize("kind", ["run", "job"])
@pytest.mark.parametrize("value", ["", "9x", "-3", "\u0663", "9" * 30])
def test_a_number_that_is_repaired_is_beyond_all_that_were_used(
    store: SqliteStore, kind: str, value: str
) -> None:
    """3,000 runs came and went, and their events with them, but for the last."""
    raw(store, "INSERT INTO events (seq, at, kind) VALUES (9000, 1, 'node.up')")
    store.write([Statement("set_meta", {"key": f"highest_{kind}", "value": value})])
    assert problems(store) == [f"highest_{kind} is {value!r}, not a number"]
    repair(store)
    assert problems(store) == []
    assert store.read("max_ids")[0][kind] >= 1_000_000 + 9000


def test_the_feed_is_said_to_begin_where_it_does(store: SqliteStore) -> None:
    raw(store, "UPDATE events SET seq = 70")
    store.write([Statement("set_meta", {"key": "events_trimmed", "value": "x"})])
    repair(store)
    assert store.read("events_trimmed") == [{"seq": 69}]


def test_numbers_of_a_shared_database_are_repaired(postgres_server: Postgres) -> None:
    """There a text that is no number is an error to every query that reads it as one."""
    url = postgres_server.new_database()
    with closing(open_postgres(url)) as store:
        store.leadership(Identity("one", "http://127.0.0.1:1", "1")).acquire()
        store.write([rows.run(7), rows.job(7, 7), rows.event(run_id=7)])
        for key in NUMBERS[1:]:
            store.write([Statement("set_meta", {"key": key, "value": "9x"})])
        found = list(check_tables(store, NOW))
        assert len(found) == len(NUMBERS) - 1
        store.write([statement for one in found for statement in one.repair])
        assert list(check_tables(store, NOW)) == []
        assert store.read("max_ids")[0]["run"] > 1_000_000
    postgres_server.drop_database(url)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            "UPDATE runs SET state = 'failed', ended_at = 1 WHERE id = 2",
            "job 2 is running, but its run 2 has ended (failed)",
        ),
        (
            "UPDATE jobs SET state = 'failed', ended_at = 1 WHERE id = 3",
            "run 3 is queued, but none of its jobs is live",
        ),
        ("DELETE FROM attempts WHERE job_id = 2", "job 2 is running, but there is no live"),
        (
            "UPDATE attempts SET state = 'done', ended_at = 9 WHERE job_id = 2",
            "job 2 is running, but there is no live attempt 1 of it",
        ),
        ("UPDATE jobs SET node_id = 2 WHERE id = 2", "job 2 is on node 2, but its attempt 1"),
        ("UPDATE jobs SET node_id = NULL WHERE id = 2", "job 2 is on node None, but its"),
        (
            "UPDATE attempts SET state = 'staging' WHERE job_id = 1",
            "attempt 1 of job 1 is staging, but the job is succeeded",
        ),
        (
            "UPDATE attempts SET state = 'running' WHERE job_id = 3",
            "attempt 1 of job 3 is running, but the job is queued",
        ),
        ("UPDATE jobs SET attempt = 0 WHERE id = 3", "job 3 had 1 attempts, but counts 0"),
        ("UPDATE runs SET ended_at = NULL WHERE id = 1", "run 1 is succeeded, but has no time"),
        ("UPDATE jobs SET ended_at = NULL WHERE id = 1", "job 1 is succeeded, but has no time"),
        (
            "UPDATE attempts SET ended_at = NULL WHERE job_id = 1",
            "attempt 1 of job 1 is done, but has no time of its end",
        ),
        ("UPDATE runs SET ended_at = 7 WHERE id = 2", "run 2 is running, but has a time of its"),
        (
            "INSERT INTO events (at, kind, run_id, job_id) VALUES (1, 'x', 77, 5)",
            "run 77 was there, but its number would be given out again",
        ),
        (
            "INSERT INTO events (at, kind, run_id, job_id) VALUES (1, 'x', 5, 88)",
            "job 88 was there, but its number would be given out again",
        ),
        ("UPDATE requests SET runs = '[{'", "the answer to request 'r' of ada cannot be read"),
        (
            "INSERT INTO meta VALUES ('epoch', 'many') "
            "ON CONFLICT (key) DO UPDATE SET value = 'many'",
            "epoch is 'many', not a number",
        ),
    ],
)
def test_damage_between_tables_is_found_and_repaired(
    store: SqliteStore, damage: str, problem: str
) -> None:
    raw(store, damage)
    found = problems(store)
    assert any(one.startswith(problem) for one in found), found
    repair(store)
    assert problems(store) == []


def test_a_job_that_lacks_a_rank_is_ended(store: SqliteStore) -> None:
    raw(store, "UPDATE runs SET spec = json_set(spec, '$.nodes', 3) WHERE id = 2")
    copied = "attempt, 1, node_id, state, gpus, assigned_at FROM attempts WHERE job_id = 2"
    columns = "job_id, attempt, rank, node_id, state, gpus, assigned_at"
    raw(store, f"INSERT INTO attempts ({columns}) SELECT job_id, {copied}")
    assert problems(store) == ["job 2 is running, but attempt 1 lacks rank 2"]
    repair(store)
    assert problems(store) == []
    states = store.read("check_live_attempts_of_ended_jobs")
    assert states == []


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("UPDATE jobs SET state = 'dreaming' WHERE id = 3", "1 job is 'dreaming' (number 3"),
        ("UPDATE runs SET state = 'odd' WHERE id = 4", "1 run is 'odd' (number 4 is one)"),
        ("UPDATE runs SET spec = '[' WHERE id = 2", "the spec of run 2 (run-2) cannot be read"),
        (
            "UPDATE nodes SET resources = '[' WHERE id = 1",
            "no server can start from these tables: ",
        ),
        (
            "INSERT INTO run_blobs VALUES (2, 'abc', 'tree')",
            "tree abc of run 2 (run-2, running) is not there",
        ),
    ],
)
def test_what_nothing_mechanical_mends_is_told(
    store: SqliteStore, damage: str, problem: str
) -> None:
    raw(store, damage)
    found = [one.finding for one in check_tables(store, NOW)]
    told = [one for one in found if one.problem.startswith(problem)]
    assert told, found
    assert told[0].remedy
    assert not told[0].repairable


# content


class Content:
    """A store with a tree of two files, each in a pack of its own."""

    def __init__(self, directory: Path, store: SqliteStore) -> None:
        self.directory, self.store = directory, store
        self.writer = Writer(store)
        self.blobs = Blobs(directory, store, self.writer)
        self.files = [b"one" * 1000, b"two" * 1000]
        entries = [
            tree.Entry(str(n), "file", digest=_name(data), size=len(data))
            for n, data in enumerate(self.files)
        ]
        self.root = tree.encode(tree.Manifest(entries))
        for data in (*self.files, self.root):
            framed = zstd.compress(data)
            head = packs.header(_name(data), len(framed), len(data))
            self.blobs.add_pack(head + framed)
        use = {"run_id": 2, "digest": _name(self.root), "kind": "tree"}
        store.write([Statement("insert_run_blob", use)])

    def pack(self, data: bytes) -> Path:
        wanted = '["' + _name(data) + '"]'
        [row] = self.store.read("blobs", {"digests": wanted})
        pack: str = row["pack"]
        return self.directory / "packs" / pack[:2] / f"{pack}.pack"

    def check(self, *, deep: bool = True) -> list[Found]:
        return self.blobs.check(deep=deep)


def _name(data: bytes) -> Any:
    return blake3(data).hexdigest()


@pytest.fixture
def content(store: SqliteStore, tmp_path: Path) -> Iterator[Content]:
    content = Content(tmp_path, store)
    yield content
    content.writer.close()


def test_sound_content_has_no_problems(content: Content) -> None:
    assert content.check() == []
    assert problems(content.store) == []


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 0xFF
    path.write_bytes(data)


def _other_header(path: Path) -> None:
    path.write_bytes(b"\0" * 8 + path.read_bytes()[8:])


@pytest.mark.parametrize(
    ("damage", "problem", "shallow"),
    [
        (Path.unlink, "is missing", True),
        (_cut, "bytes, not", True),
        (_flip, "damaged|other content", False),
        (_other_header, "its header is another's", False),
    ],
)
def test_damaged_packs_are_found_and_forgotten_for_a_new_upload(
    content: Content, damage: Callable[[Path], None], problem: str, shallow: bool
) -> None:
    damage(content.pack(content.files[0]))
    assert bool(content.check(deep=False)) == shallow
    found = content.check()
    assert re.search(problem, found[0].finding.problem)
    assert "lacks 1 of 2 files" in found[1].finding.problem
    content.store.write([statement for one in found for statement in one.repair])
    assert content.blobs.missing([_name(content.files[0])]).digests == [_name(content.files[0])]
    [left] = content.check()
    assert "submit its run again" in left.finding.remedy


def test_a_damaged_manifest_is_found(content: Content) -> None:
    _flip(content.pack(content.root))
    found = content.check()
    assert "blob" in found[0].finding.problem
    content.store.write([statement for one in found for statement in one.repair])
    [told] = problems(content.store)
    assert told == f"tree {_name(content.root)} of run 2 (run-2, running) is not there"


def test_blobs_outside_their_pack_are_found(content: Content) -> None:
    digest = _name(content.files[0])
    raw(content.store, "UPDATE blobs SET start = 100000 WHERE digest = :d", d=digest)
    [told] = problems(content.store)
    assert told.startswith(f"blob {digest} lies outside its pack")
    repair(content.store)
    assert problems(content.store) == []
