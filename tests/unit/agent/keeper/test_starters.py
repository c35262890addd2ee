from __future__ import annotations

import os
import select
import shutil
import signal
import threading
from typing import Any

import pytest

from moorage.agent.keeper import launching, spawning
from moorage.agent.keeper.launching import Started
from moorage.agent.keeper.loop import Loop
from moorage.agent.keeper.starters import Starters, may_hang
from moorage.agent.sandbox import mounting


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
            assert gate.wait(30)
        return Started(asked["pid"])

    def done(started: Started) -> None:
        ended.append(started.pid)
        if len(ended) == 2:  # the two behind the one that hangs
            gate.set()
        if len(ended) == 3:
            loop.stop()

    monkeypatch.setattr(launching, "start", start)
    starters = Starters(loop, None)
    loop.later(60, loop.stop)
    for number in (1, 2, 3):
        starters.submit(request(number), None, done)
    loop.run()
    assert (set(ended[:2]), ended[2:]) == ({2, 3}, [1])


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv")
def test_no_program_loses_its_parent_while_the_keeper_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first start hangs, so that its thread is relieved, and ends when all is done."""
    gate = threading.Event()
    loop, ended = Loop(), []
    reader, writer = os.pipe2(os.O_CLOEXEC)
    words = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", "echo; exec sleep 1000"]

    def start(asked: dict[str, Any], *_: object) -> Started:
        if asked["pid"] == 2:
            assert gate.wait(30)
        if asked["pid"] != 1:
            return Started()
        path = shutil.which("setpriv")
        pid = spawning.spawn(words, {"PATH": os.environ["PATH"]}, [reader, writer], (), path)
        os.read(reader, 1)
        return Started(pid)

    def done(started: Started) -> None:
        ended.append(started.pid)
        if len(ended) == 2:  # all but the one that hangs
            gate.set()
        if len(ended) == 3:
            loop.stop()

    monkeypatch.setattr(launching, "start", start)
    starters = Starters(loop, None)
    loop.later(60, loop.stop)
    for number in (1, 2, 3):
        starters.submit(request(number), None, done)
    loop.run()
    assert len(ended) == 3
    pid = max(ended)
    child = os.pidfd_open(pid)
    try:
        assert not select.select([child], [], [], 0.3)[0]
    finally:
        signal.pidfd_send_signal(child, signal.SIGKILL)
        os.waitpid(pid, 0)
        for descriptor in (child, reader, writer):
            os.close(descriptor)


def test_a_thread_that_may_not_have_its_own_root_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container whose seccomp profile forbids unshare(2)."""

    def refuse(_flags: int) -> None:
        raise mounting.MountError("the kernel refuses a new namespace")

    loop, ended = Loop(), []

    def done(started: Started) -> None:
        ended.append(started)
        loop.stop()

    monkeypatch.setattr(mounting, "unshare", refuse)
    loop.later(60, loop.stop)
    Starters(loop, None).submit(request(mounts=None), None, done)
    loop.run()
    assert str(ended[0].error) == "the kernel refuses a new namespace"


def test_what_needs_a_file_server_is_told() -> None:
    assert not may_hang(request())
    assert not may_hang(request(mounts=None, cwd="/home/attempts/1.1.0/work"))
    assert may_hang(request(cwd="/nfs"))
    assert may_hang(request(mounts=[["bind", "/nfs", "/workflow", False]]))
    assert may_hang(request(mounts=[["bind", "/home/attempts/1.1.0/files/0", "/nfs/x", False]]))
