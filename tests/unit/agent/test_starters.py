from __future__ import annotations

import threading
from typing import Any

import pytest

from moorage.agent import launching
from moorage.agent.keeperloop import Loop
from moorage.agent.launching import Started
from moorage.agent.starters import Starters, may_hang


def request(number: int = 1, **more: Any) -> dict[str, Any]:
    directory = f"/home/attempts/{number}.1.0"
    mounts = [
        ["tmpfs", "/dev/shm", None],
        ["bind", f"{directory}/tmp", "/tmp", False],
        ["bind", f"{directory}/work", "/workflow", False],
        ["bind", directory, directory, False],
    ]
    return {"pid": number, "directory": directory, "cwd": "/workflow", "mounts": mounts, **more}


def test_a_start_that_hangs_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    loop, ended = Loop(), []

    def start(asked: dict[str, Any], *_: object) -> Started:
        if asked["pid"] == 1:
            assert gate.wait(20)
        return Started(asked["pid"])

    def done(started: Started) -> None:
        ended.append(started.pid)
        if len(ended) == 2:  # the two behind the one that hangs
            gate.set()
        if len(ended) == 3:
            loop.stop()

    monkeypatch.setattr(launching, "start", start)
    starters = Starters(loop, None)
    loop.later(20, loop.stop)
    for number in (1, 2, 3):
        starters.submit(request(number), None, done)
    loop.run()
    assert ended == [2, 3, 1]


def test_what_needs_a_file_server_is_told() -> None:
    assert not may_hang(request())
    assert not may_hang(request(mounts=None, cwd="/home/attempts/1.1.0/work"))
    assert may_hang(request(cwd="/nfs"))
    assert may_hang(request(mounts=[["bind", "/nfs", "/workflow", False]]))
    assert may_hang(request(mounts=[["bind", "/home/attempts/1.1.0/files/0", "/nfs/x", False]]))
