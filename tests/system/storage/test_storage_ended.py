"""`moorage storage cp` that others end, and stores that go away meanwhile."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.data.objects.bucket import open_bucket
from moorage.data.objects.unfinished import Uploads
from system.cli_harness import COMMAND, PATIENCE, Command
from testbed import storekinds
from testbed.stores import StoreServer

SIZE = 10**10
"""Bytes without content: long enough on the way, and only what is sent takes room."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """To kill and to freeze."""
    with storekinds.serve(storekinds.SEAWEED, tmp_path_factory.mktemp("weed") / "w") as server:
        yield server


@pytest.fixture(scope="module")
def moorage(tmp_path_factory: pytest.TempPathFactory, store: StoreServer) -> Iterator[Command]:
    command = Command(tmp_path_factory.mktemp("home"))
    secrets = store.access.secrets
    added = command(
        *("store", "add", "lab", "--type", "s3", "--endpoint", store.endpoint),
        *("--path-style", "--access-key-id", secrets["access_key_id"]),
        stdin=f"{secrets['secret_access_key']}\n",
    )
    assert added.code == 0, added.err
    yield command
    command.end()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, SIZE)
    return path


def uploads_of(store: StoreServer, bucket: str) -> Uploads:
    return open_bucket(store.access, bucket).uploads


def sending(
    moorage: Command, uploads: Uploads, bucket: str, large: Path, error: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """A process that has begun to send it."""
    words = ("storage", "cp", str(large), f"lab://{bucket}/d/large")
    process = subprocess.Popen([*COMMAND, *words], env=moorage.environment, stderr=error)
    deadline = time.monotonic() + PATIENCE
    while not uploads.listed():
        assert process.poll() is None
        assert time.monotonic() < deadline
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_a_signal_ends_leaves_nothing(
    moorage: Command, store: StoreServer, large: Path, number: signal.Signals
) -> None:
    bucket = store.make_bucket()
    uploads = uploads_of(store, bucket)
    with sending(moorage, uploads, bucket, large) as process:
        process.send_signal(number)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert told.decode() == (
        f"moorage: error: ended by {number.name}; begin again: only what is missing is moved\n"
    )
    assert uploads.listed() == []


def test_a_terminal_that_is_closed_leaves_nothing(
    moorage: Command, store: StoreServer, large: Path
) -> None:
    """Its progress, and what is said in the end, reach nobody."""
    bucket = store.make_bucket()
    uploads = uploads_of(store, bucket)
    screen, inside = pty.openpty()
    with sending(moorage, uploads, bucket, large, inside) as process:
        os.close(inside)
        os.close(screen)
        process.send_signal(signal.SIGHUP)
        process.wait(PATIENCE)
    assert uploads.listed() == []


def test_a_store_that_goes_away_midway_is_told_and_that_it_is_back(
    moorage: Command, store: StoreServer, large: Path
) -> None:
    bucket = store.make_bucket()
    uploads = uploads_of(store, bucket)
    with sending(moorage, uploads, bucket, large) as process:
        store.freeze()
        assert process.stderr is not None
        assert process.stderr.readline().decode() == (
            f"moorage: lab://{bucket} does not answer; it is tried for 40s, "
            "or 15m where it takes connections\n"
        )
        store.thaw()
        told = process.stderr.readline().decode()
        assert told.startswith(f"moorage: lab://{bucket} answers again, after ")
        process.kill()


def test_what_cannot_be_removed_is_told(moorage: Command, store: StoreServer, large: Path) -> None:
    bucket = store.make_bucket()
    uploads = uploads_of(store, bucket)
    with sending(moorage, uploads, bucket, large) as process:
        store.kill()
        process.terminate()
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    assert told.decode().splitlines()[0] == (
        f"moorage: parts of what was sent may be left in lab://{bucket}; "
        f"moorage storage cleanup lab://{bucket}"
    )
    store.start()
    assert [one.key for one in uploads.listed()] == ["d/large"]
