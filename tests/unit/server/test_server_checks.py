"""What is asked of the content of submitted runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from moorage.errors import InvalidInput
from moorage.protocol.api import MissingReply, RunRequest
from moorage.server.checks import checker
from moorage.specs.mounts import Files, Repo
from moorage.specs.task import Task
from moorage.store.blobs import Blobs
from moorage.store.sqlite import open_sqlite
from moorage.store.writer import Writer

TREE, PACK = "a" * 64, "b" * 64


class Counted(Blobs):
    looks = 0

    def missing(self, digests: Sequence[str] = (), trees: Sequence[str] = ()) -> MissingReply:
        self.looks += 1
        return super().missing(digests, trees)


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[Counted]:
    store = open_sqlite(tmp_path / "test.db")
    writer = Writer(store)
    yield Counted(tmp_path, store, writer)
    writer.close()
    store.close()


def test_runs_that_share_their_content_are_looked_at_once(blobs: Counted) -> None:
    plain = RunRequest(Task(commands=["x"]))
    files = RunRequest(Task(commands=["x"], mounts=[Files("a", "a", TREE)]))
    repo = RunRequest(Task(commands=["x"], mounts=[Repo(source=".", tree=TREE, pack=PACK)]))
    with pytest.raises(InvalidInput) as refusal:
        asyncio.run(checker(blobs)([plain, files, repo, *[files] * 500]))
    assert [str(problem) for problem in refusal.value.problems[:3]] == [
        f"runs[1]: tree {TREE} is not on the server; upload it",
        f"runs[2]: tree {TREE} is not on the server; upload it",
        f"runs[2]: blob {PACK} is not on the server; upload it",
    ]
    assert len(refusal.value.problems) == 503
    assert blobs.looks == 1


def test_runs_without_content_ask_nothing(blobs: Counted) -> None:
    asyncio.run(checker(blobs)([RunRequest(Task(commands=["x"]))]))
    assert blobs.looks == 0
