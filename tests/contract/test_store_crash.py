"""kill -9 in the middle of writing: what was acknowledged is there, the rest is all or nothing."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from contract import crash_programs
from contract.blob_suite import name, unpacked
from moorage.store.blobs import Blobs
from moorage.store.writer import Writer


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Where the programs write: a PostgreSQL, or nothing for SQLite."""
    return request.getfixturevalue("database") if request.param == "postgres" else None


def killed(
    program: str, directory: Path, number: int, *, after: int, url: str | None
) -> list[int]:
    """Run a program of `crash_programs`, kill it once it has acknowledged `after` times, and
    return all that it acknowledged."""
    source = Path(crash_programs.__file__)
    database = {crash_programs.DATABASE: url} if url else {}
    process = subprocess.Popen(
        [sys.executable, str(source), program, str(directory), str(number)],
        stdout=subprocess.PIPE,
        env={**os.environ, **database, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    output = b""
    try:
        while output.count(b"\n") < after:
            assert select.select([process.stdout], [], [], 60)[0], "the program is stuck"
            data = os.read(process.stdout.fileno(), 65536)
            assert data, "the program ended by itself"
            output += data
    finally:
        process.kill()
        output += process.stdout.read()
        process.stdout.close()
        process.wait()
    return [int(line) for line in output.splitlines()]


def test_acknowledged_batches_survive_and_no_batch_is_half(
    tmp_path: Path, url: str | None
) -> None:
    chance = random.Random(20)
    acknowledged: set[int] = set()
    highest = 0
    for _ in range(20):
        after = chance.randrange(1, 400)
        acknowledged.update(killed("write", tmp_path, highest, after=after, url=url))
        store = crash_programs.opened(tmp_path, url)
        rows = store.read("events_since", {"since": 0, "limit": 1_000_000})
        store.close()
        found = Counter(row["run_id"] for row in rows)
        assert acknowledged <= set(found)
        assert set(found.values()) == {crash_programs.BATCH}
        # In the order of submission, without a gap: nothing overtook anything.
        assert list(found) == list(range(1, max(found) + 1))
        highest = max(found)
    assert len(acknowledged) > 1000


def test_acknowledged_uploads_survive_and_leftovers_are_found(
    tmp_path: Path, url: str | None
) -> None:
    chance = random.Random(6)
    acknowledged: set[int] = set()
    for turn in range(6):
        first = turn * 1000
        after = chance.randrange(1, 60)
        acknowledged.update(killed("upload", tmp_path, first, after=after, url=url))
        store = crash_programs.opened(tmp_path, url)
        writer = Writer(store)
        packs = crash_programs.packs_of(tmp_path, store, writer)
        blobs = Blobs(tmp_path, store, writer, packs=packs)
        for number in acknowledged:
            contents = crash_programs.contents(number)
            sent = blobs.iter_pack([name(raw) for raw in contents])
            assert [raw for _, raw in unpacked(b"".join(sent))] == contents
        blobs.collect(0.0, 0.0)  # so long ago that only leftovers go
        assert set(packs.listing()[0]) == {row["id"] for row in store.read("packs")}
        writer.close()
        store.close()
