"""When a store counts as silent, and who is told."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from moorage.data.rclone import stalls
from moorage.data.rclone.mount import RcloneMount
from moorage.data.rclone.rc import Control, Unreachable
from moorage.data.rclone.stalls import Stall
from moorage.specs.mounts import Bucket


class Store(Control):
    """One that does what the test says."""

    def __init__(self) -> None:
        self.moved = 0
        self.answers = True
        self.uploads_now = False
        self.asked = 0
        self.hangs = False

    def uploading(self, patience: float) -> bool:
        assert patience
        return self.uploads_now

    def mark(self, patience: float) -> tuple[int, int, int]:
        if self.hangs:
            raise Unreachable(f"after {patience} s")
        return self.moved, 0, 0

    def store_answers(self, bucket: str, patience: float) -> bool:
        assert (bucket, patience) == ("b", stalls.PATIENCE)
        self.asked += 1
        return self.answers


class Scene:
    def __init__(self, directory: Path, mode: str) -> None:
        mount = RcloneMount(directory)
        self.store = mount.control = Store()
        self.now = 1000.0
        self.told: list[tuple[str, float | None]] = []
        bucket = Bucket("/data", store="lab", bucket="b", mode=mode)  # type: ignore[arg-type]
        self.stall = Stall(mount, bucket, lambda *told: self.told.append(told))

    def look(self, times: int, wanted: bool = True) -> None:
        for _ in range(times):
            self.now += 1
            self.stall.look(wanted)
            for thread in threading.enumerate():
                if thread.name == "asks a store":
                    thread.join()


@pytest.fixture
def scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Scene:
    found = Scene(tmp_path, getattr(request, "param", "mount"))
    monkeypatch.setattr(stalls.time, "time", lambda: found.now)
    return found


def test_one_that_nobody_waits_for_is_never_asked(scene: Scene) -> None:
    scene.store.answers = False
    scene.look(100, wanted=False)
    assert (scene.store.asked, scene.told) == (0, [])


def test_one_that_moves_is_never_asked(scene: Scene) -> None:
    for _ in range(20):
        scene.store.moved += 1
        scene.look(1)
    assert (scene.store.asked, scene.told) == (0, [])


def test_one_that_answers_is_asked_seldom_and_nobody_told(scene: Scene) -> None:
    scene.look(40)
    assert scene.store.asked <= 40 / stalls.QUIET
    assert scene.told == []


def test_its_silence_is_told_ever_more_rarely_and_its_end_once(scene: Scene) -> None:
    scene.store.answers = False
    scene.look(60)
    assert scene.told[0] == ("stalled: store lab has not answered for 3.0s", 1001.0)
    assert 4 < len(scene.told) < 12
    scene.store.answers = True
    count = len(scene.told)
    scene.look(5, wanted=False)
    assert scene.told[count:] == [("waited 1m1s for store lab", None)]


def test_bytes_that_move_are_an_answer_too(scene: Scene) -> None:
    scene.store.answers = False
    scene.look(8)
    scene.store.moved += 1
    scene.look(2)
    assert scene.told[-1][1] is None


def test_of_an_rclone_that_hangs_others_tell(scene: Scene) -> None:
    scene.store.answers, scene.store.hangs = False, True
    scene.look(20)
    assert scene.told == []


@pytest.mark.parametrize("scene", ["cached"], indirect=True)
def test_uploads_that_nobody_waits_for(scene: Scene) -> None:
    scene.store.answers = False
    scene.look(20, wanted=False)
    assert scene.told == []
    scene.store.uploads_now = True
    scene.look(12, wanted=False)
    assert scene.told[-1][1] is not None
