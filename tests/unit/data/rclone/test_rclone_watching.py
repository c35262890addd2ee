"""When a mount is taken for one that hangs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.data.rclone import watching
from moorage.data.rclone.mount import RcloneMount
from moorage.data.rclone.watching import Watch
from moorage.specs.mounts import Bucket


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Of one that lives, and for which nobody waits."""
    monkeypatch.setattr(watching, "LOOK", 0.05)
    monkeypatch.setattr(RcloneMount, "pidfd", lambda mount: os.pidfd_open(os.getpid()))
    made = Watch(RcloneMount(tmp_path / "1.1.0" / "mounts" / "0"), Bucket("/data", "s3", "b"))
    yield made
    made.stop()


def test_a_late_answer_is_one(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine each may come after a look: it was killed as one that hangs."""
    asked, answer = [], threading.Event()

    def statvfs(place: Path) -> None:
        asked.append(place)
        assert answer.wait(30)

    monkeypatch.setattr(watching.os, "statvfs", statvfs)
    assert not watch._answers()
    assert not watch._answers()
    answer.set()
    for thread in threading.enumerate():
        if thread.name.endswith("asks"):
            thread.join(30)
    assert watch._answers()
    assert len(asked) == 1
    monkeypatch.setattr(watching, "LOOK", 30.0)
    assert watch._answers()
    assert len(asked) == 2
