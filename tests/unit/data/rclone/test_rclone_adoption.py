"""Caches that get another name, whoever is killed while that is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.data.rclone import adoption


def fill(top: Path, name: str, *files: str) -> None:
    for kind in ("vfs", "vfsMeta"):
        (top / "cache" / kind / name / "bucket").mkdir(parents=True)
        for file in files:
            (top / "cache" / kind / name / "bucket" / file).write_text(file)


def found(top: Path) -> dict[str, list[str]]:
    cache = top / "cache"
    return {
        kind: sorted(str(path.relative_to(cache / kind)) for path in (cache / kind).glob("*/*/*"))
        for kind in ("vfs", "vfsMeta")
    }


def test_what_has_the_right_name_keeps_it(tmp_path: Path) -> None:
    fill(tmp_path, "own", "a")
    assert not adoption.begin(tmp_path, "own")
    adoption.finish(tmp_path)
    assert found(tmp_path) == {kind: ["own/bucket/a"] for kind in ("vfs", "vfsMeta")}


@pytest.mark.parametrize("unused", ["a-unused", "z-unused"])
def test_nothing_gives_way_to_what_an_rclone_left_that_was_hardly_started(
    tmp_path: Path, unused: str
) -> None:
    fill(tmp_path, "old", "a", "b")
    fill(tmp_path, unused)
    fill(tmp_path, "own")
    assert adoption.begin(tmp_path, "own")
    adoption.finish(tmp_path)
    both = ["own/bucket/a", "own/bucket/b"]
    assert found(tmp_path) == {"vfs": both, "vfsMeta": both}
    assert not adoption.begin(tmp_path, "own")


def test_two_leave_something(tmp_path: Path) -> None:
    fill(tmp_path, "older", "a", "both")
    fill(tmp_path, "old", "b", "both")
    assert adoption.begin(tmp_path, "own")
    adoption.finish(tmp_path)
    all_of_it = ["older/bucket/both", "own/bucket/a", "own/bucket/b", "own/bucket/both"]
    assert found(tmp_path) == {"vfs": all_of_it, "vfsMeta": all_of_it}


def test_contents_and_notes_go_together_though_it_was_broken_off(tmp_path: Path) -> None:
    fill(tmp_path, "old", "a")
    assert adoption.begin(tmp_path, "own")
    (tmp_path / "cache" / "vfs" / "old").rename(tmp_path / "cache" / "vfs" / "own")
    adoption.finish(tmp_path)  # of the next agent, before it starts an rclone
    assert found(tmp_path) == {kind: ["own/bucket/a"] for kind in ("vfs", "vfsMeta")}
