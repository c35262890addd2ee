from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from moorage.agent.supply import Supply, batches
from moorage.data.base import Bind, Handle, Place, SourceError
from moorage.data.sources import in_order
from moorage.specs.mounts import Files, HostPath, Mount, Repo


class Recorder:
    """Notes what it is asked for, and offers a bind for every volume."""

    def __init__(self) -> None:
        self.prepared: list[tuple[str, tuple[Bind, ...]]] = []
        self.released: list[str] = []

    def of(self, mount: Mount) -> Recorder:
        return self

    def prepare(self, mount: Mount, place: Place, number: int) -> Handle:
        self.prepared.append((mount.target, place.binds))
        if mount.target == "broken":
            raise SourceError("broken")
        binds = [Bind(Path("/node"), place.target(mount.target))]
        return Handle(binds if isinstance(mount, HostPath) else [], mount.target)

    def release(self, mount: Mount, place: Place, number: int) -> None:
        self.released.append(mount.target)
        if mount.target == "broken":
            raise OSError(5, "Input/output error")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, tmp_path / "work", Path("/home/ada"))


def test_only_mounts_that_cannot_meet_are_prepared_side_by_side(place: Place) -> None:
    mounts: list[Mount] = [
        Files("a", "a"),
        Files("b", "b"),
        Files("c", "a/c"),
        Repo("code", url="x"),
        HostPath("/v", "v"),
        HostPath("/w", "/w"),
        HostPath("/x", "v/x"),
    ]
    found = [[mount.target for _, mount in batch] for batch in batches(in_order(mounts), place)]
    assert found == [["v", "/w"], ["v/x"], ["code"], ["a", "b"], ["a/c"]]


def test_later_mounts_see_the_volumes_before_them(place: Place) -> None:
    sources = Recorder()
    supply = Supply(sources)  # type: ignore[arg-type]
    mounts: list[Mount] = [Files("a", "v/a"), HostPath("/v", "v")]
    binds, detail = asyncio.run(supply.prepare(mounts, place, lambda: True))
    volume = Bind(Path("/node"), Path("/workflow/v"))
    assert binds == [volume]
    assert detail == "v; v/a"
    work = Bind(place.work, Path("/workflow"))
    assert sources.prepared == [("v", (work,)), ("v/a", (work, volume))]


def test_nothing_more_is_prepared_than_is_wanted(place: Place) -> None:
    sources = Recorder()
    supply = Supply(sources)  # type: ignore[arg-type]
    asyncio.run(supply.prepare([HostPath("/v", "v")], place, lambda: False))
    assert sources.prepared == []


def test_an_error_waits_for_the_others_and_all_are_released(place: Place) -> None:
    sources = Recorder()
    supply = Supply(sources)  # type: ignore[arg-type]
    mounts: list[Mount] = [Files("x", "broken"), Files("y", "fine")]
    with pytest.raises(SourceError, match="broken"):
        asyncio.run(supply.prepare(mounts, place, lambda: True))
    assert {target for target, _ in sources.prepared} == {"broken", "fine"}
    assert len(supply.release(mounts, place)) == 1
    assert sources.released == ["fine", "broken"]
