"""What a clerk opens, and what it does where it can do no more."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from moorage.agent.fsyncs import clerk
from moorage.agent.fsyncs.calls import FSYNC, Call
from moorage.agent.fsyncs.journal import Journal


class Listener:
    def __init__(self) -> None:
        self.answers: list[tuple[int, int]] = []

    def answer(self, number: int, error: int = 0) -> bool:
        self.answers.append((number, error))
        return True


class Mounts:
    """Everything is of one."""

    def find(self, device: int) -> Any:
        return object()


def test_a_call_for_which_there_is_no_thread_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    listener = Listener()
    descriptor = os.memfd_create("calls")
    try:
        made = clerk.Clerk(listener, Journal(descriptor), Mounts())  # type: ignore[arg-type]
        for number in (7, 8):
            made._begin(Call(number, os.getpid(), FSYNC, (descriptor,)))
        assert listener.answers == [(7, errno.EIO), (8, errno.EIO)]
        assert len(list(Journal(descriptor).entries())) == 2  # one place served both
    finally:
        os.close(descriptor)


def test_what_is_elsewhere_by_now_is_not_opened(tmp_path: Path) -> None:
    place = tmp_path / "pipe"
    os.mkfifo(place)
    mine = tmp_path.stat().st_dev
    os.close(clerk._open(str(place), mine))
    with pytest.raises(OSError, match="another file by now"):
        clerk._open("/proc/self/stat", mine)
