"""A lock of another program is waited for, and that is said, with its name."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.store import sqlite_wait
from moorage.store.base import StoreBroken
from moorage.store.sqlite import examine_sqlite, open_sqlite

HOLDER = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
    "c.execute('PRAGMA locking_mode = EXCLUSIVE' if sys.argv[2] == 'EXCLUSIVE' else 'SELECT 1'); "
    "c.execute('BEGIN ' + sys.argv[2]); print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    open_sqlite(tmp_path / "moorage.db").close()
    return tmp_path / "moorage.db"


@pytest.fixture(params=["IMMEDIATE", "EXCLUSIVE"])
def holder(path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLDER, path, request.param]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


class Said(logging.Handler):
    """Ends the holder as soon as it is said that it is waited for."""

    def __init__(self, holder: subprocess.Popen[bytes]) -> None:
        super().__init__()
        self.holder = holder
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())
        self.holder.kill()
        self.holder.wait()


def test_it_is_said_who_is_waited_for(
    path: Path, holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_wait, "QUIET", 0.1)
    said = Said(holder)
    logger = logging.getLogger(sqlite_wait.__name__)
    logger.addHandler(said)
    try:
        open_sqlite(path).close()
    finally:
        logger.removeHandler(said)
    [words] = said.words
    assert words.startswith(f"{path} is locked by process {holder.pid} (")
    assert words.endswith("; waiting up to 10 s for it")


def test_a_lock_that_stays_is_refused_with_its_holder(
    path: Path, holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_wait, "QUIET", 0.1)
    monkeypatch.setattr(sqlite_wait, "PATIENCE", 0.3)
    with pytest.raises(StoreBroken, match=rf"is locked by process {holder.pid} \(.*: end it"):
        open_sqlite(path)


def test_an_unlocked_one_is_opened_without_a_word(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_sqlite(path).close()
    examine_sqlite(path).close()
    assert caplog.messages == []
