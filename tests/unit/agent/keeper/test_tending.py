from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.agent.keeper import launching, tending
from moorage.agent.keeper.job import Job
from moorage.agent.keeper.launching import Started
from moorage.agent.keeper.loop import Loop
from moorage.agent.keeper.tending import Tender


def request(directory: Path, **more: Any) -> dict[str, Any]:
    common = {"key": "1.1.0", "argv": ["/bin/true"], "env": {}, "cgroup": None, "mounts": None}
    rest = {"cwd": str(directory), "output": f"{directory}/output", "max_duration": None}
    return {"directory": str(directory), **common, **rest, "grace": None, **more}


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def test_the_death_of_another_process_with_the_same_number_ends_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: int
) -> None:
    gate, loop, answers = threading.Event(), Loop(), []
    dead = [(sleeper, 0, resource.getrusage(resource.RUSAGE_SELF)), (0, 0, None)]

    def start(*_: object) -> Started:
        assert gate.wait(30)
        started = Started(sleeper)
        started.called = time.monotonic()
        return started

    def answer(given: dict[str, Any]) -> None:
        answers.append(given)
        loop.stop()

    monkeypatch.setattr(launching, "may_mount", lambda: False)
    monkeypatch.setattr(launching, "start", start)
    monkeypatch.setattr(os, "wait4", lambda *_: dead.pop(0))
    tender = Tender(loop, None, lambda *_: None)
    tender.spawn(request(tmp_path), answer)
    tender.reap()  # an orphan, while the start hangs
    gate.set()
    loop.later(60, loop.stop)
    loop.run()
    assert answers == [{"pid": sleeper}]
    assert tender.jobs["1.1.0"].state == "running"


def test_a_stop_is_told_to_the_main_process_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell that sees its program end before it is told itself begins the next one."""
    told: list[int] = []
    monkeypatch.setattr(launching, "may_mount", lambda: False)
    monkeypatch.setattr(tending, "send", lambda pid, _: told.append(pid))
    tender = Tender(Loop(), None, lambda *_: None)
    monkeypatch.setattr(tender, "_members", lambda _: [5, 6, 7])
    job = Job(request(tmp_path))
    job.state, job.pid = "running", 6
    tender._stop(job, None, "stopped")
    assert told == [6, 5, 7] * 2


@pytest.mark.root
def test_a_start_that_failed_keeps_no_root_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not launching.may_mount():
        pytest.skip("this process may not mount")
    loop, answers = Loop(), []

    class Ending(Tender):
        def tidy(self) -> None:
            super().tidy()
            loop.stop()

    monkeypatch.setattr(tending, "_TIDY_AFTER", 0.1)
    tender = Ending(loop, None, lambda *_: None)
    loop.running = True
    (tmp_path / "tmp").mkdir()
    tender.spawn(request(tmp_path, mounts=[], cwd=f"{tmp_path}/none"), answers.append)
    late = loop.later(60, loop.stop)
    loop.run()
    assert answers[0]["step"] == "cwd"
    assert time.monotonic() < late.when, "nobody tidied up"
