"""kill -9 in the middle of writing: what was acknowledged is there, the rest is all or nothing."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
from collections import Counter
from pathlib import Path

from blake3 import blake3

from contract import crash_programs
from moorage.store.blobs import Blobs
from moorage.store.sqlite import open_sqlite
from moorage.store.writer import Writer


def killed(program: str, directory: Path, number: int, after: int) -> list[int]:
    """Run a program of `crash_programs`, kill it once it has acknowledged `after` times, and
    return all that it acknowledged."""
    source = Path(crash_programs.__file__)
    process = subprocess.Popen(
        [sys.executable, str(source), program, str(directory), str(number)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    output = b""
    try:
        while output.count(b"\n") < after:
            assert select.select([process.stdout], [], [], 30)[0], "the program is stuck"
            data = os.read(process.stdout.fileno(), 65536)
            assert data, "the program ended by itself"
            output += data
    finally:
        process.kill()
        output += process.stdout.read()
        process.stdout.close()
        process.wait()
    return [int(line) for line in output.splitlines()]


def test_acknowledged_batches_survive_and_no_batch_is_half(tmp_path: Path) -> None:
    chance = random.Random(20)
    acknowledged: set[int] = set()
    highest = 0
    for _ in range(20):
        acknowledged.update(killed("write", tmp_path, highest, after=chance.randrange(1, 400)))
        store = open_sqlite(tmp_path / "moorage.db")
        rows = store.read("events_since", {"since": 0, "limit": 1_000_000})
        store.close()
        found = Counter(row["run_id"] for row in rows)
        assert acknowledged <= set(found)
        assert set(found.values()) == {crash_programs.BATCH}
        # In the order of submission, without a gap: nothing overtook anything.
        assert list(found) == list(range(1, max(found) + 1))
        highest = max(found)
    assert len(acknowledged) > 1000


def test_acknowledged_uploads_survive_and_leftovers_are_found(tmp_path: Path) -> None:
    chance = random.Random(6)
    acknowledged: set[int] = set()
    for turn in range(6):
        first = turn * 1000
        acknowledged.update(killed("upload", tmp_path, first, after=chance.randrange(1, 60)))
        store = open_sqlite(tmp_path / "moorage.db")
        writer = Writer(store)
        blobs = Blobs(tmp_path, store, writer)
        for number in acknowledged:
            for raw in crash_programs.contents(number):
                assert blobs.read(blake3(raw).hexdigest()) == raw
        blobs.collect(0.0, 0.0)  # so long ago that only leftovers go
        files = {path.stem for path in (tmp_path / "packs").glob("*/*.pack")}
        assert files == {row["id"] for row in store.read("packs")}
        writer.close()
        store.close()
