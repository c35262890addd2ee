"""The keeper's records of a job, where the disk does not take them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moorage.agent.keeper import family
from moorage.agent.keeper import job as jobs
from moorage.agent.keeper.job import EXIT, SPAWNED, Job
from moorage.agent.keeper.launching import LaunchError


def request(directory: Path, **more: Any) -> dict[str, Any]:
    return {
        "key": "1.1.0",
        "directory": str(directory),
        "argv": ["/bin/true"],
        "env": {},
        "cwd": "/",
        "output": str(directory / "output"),
        "mounts": None,
        "cgroup": None,
        "max_duration": None,
        "grace": None,
        **more,
    }


FULL_DISK = """
import errno, json, os, signal, sys
from moorage.agent.keeper import job as jobs
from moorage.agent.keeper.loop import Loop
from moorage.agent.keeper.tending import Tender

def refuse(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

loop = Loop()
tender = Tender(loop, None, lambda key, record: loop.stop())
reader, writer = os.pipe2(os.O_NONBLOCK)
signal.signal(signal.SIGCHLD, lambda *_: None)
signal.set_wakeup_fd(writer)
loop.watch(reader, lambda _: tender.reap() if os.read(reader, 10) else None)
tender.spawn(json.loads(sys.argv[1]), lambda answer: print(json.dumps(answer), flush=True))
write, jobs._write_all = jobs._write_all, refuse
loop.run()
assert tender.busy()
jobs._write_all = write
tender.save()
assert not tender.busy()
"""
"""In a process of its own: a keeper ends every child that no job explains."""


def refuse(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_claim_that_the_disk_refuses_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(request(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_write_all", refuse)
        with pytest.raises(LaunchError, match=r"spawned\.json: No space left"):
            job.claim()
    assert not (tmp_path / SPAWNED).exists()
    job.claim()
    with pytest.raises(LaunchError, match="started before"):
        job.claim()


def test_what_was_buried_is_never_started(tmp_path: Path) -> None:
    (tmp_path / EXIT).write_text("{}")
    with pytest.raises(LaunchError, match="given up"):
        Job(request(tmp_path)).claim()


def test_an_end_that_the_disk_refuses_is_kept_until_it_is_written(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, json.dumps(request(tmp_path))],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{tmp_path / EXIT}: No space left on device\n"
    assert "pid" in json.loads(done.stdout)
    assert json.loads((tmp_path / EXIT).read_text())["exit_code"] == 0


@pytest.mark.root
def test_the_number_of_a_namespace_is_not_given_away(tmp_path: Path) -> None:
    """While the keeper looks for what a job left behind, no other job may get its number."""
    job = Job({"key": "1.1.0", "directory": str(tmp_path)})
    with apart() as process:
        job.pid = process.pid
        job.hold_namespace()
    numbers = set()
    for _ in range(5):
        with apart() as process:
            numbers.add(family.namespace_of(process.pid))
    assert job.namespace
    assert job.namespace not in numbers
    job.close()


@contextmanager
def apart() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a mount namespace of its own."""
    command = ["unshare", "--mount", "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        assert process.stdin is not None
        process.stdin.close()
