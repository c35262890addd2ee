"""Notes that rclone was killed in the middle of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moorage.data.rclone.notes import mend


def cached(cache: Path, name: str, content: bytes, note: str) -> Path:
    for kind in ("vfs", "vfsMeta"):
        (cache / kind / "bucket" / name).parent.mkdir(parents=True, exist_ok=True)
    (cache / "vfs" / "bucket" / name).write_bytes(content)
    place = cache / "vfsMeta" / "bucket" / name
    place.write_text(note)
    return place


@pytest.mark.parametrize("torn", ["", '{"Size": 3, "Dir', "[]"])
def test_a_torn_note_says_that_its_file_is_to_be_uploaded(tmp_path: Path, torn: str) -> None:
    note = cached(tmp_path, "a/new", b"abc", torn)
    mend(tmp_path)
    told = json.loads(note.read_text())
    assert (told["Size"], told["Rs"], told["Dirty"]) == (3, [{"Pos": 0, "Size": 3}], True)
    assert [path.name for path in note.parent.iterdir()] == ["new"]


def test_what_can_be_read_stays_and_what_cannot_be_known_is_not_made_up(tmp_path: Path) -> None:
    good = cached(tmp_path, "good", b"abc", '{"Size": 3, "Dirty": false}')
    holes = cached(tmp_path, "holes", b"", "")
    with open(tmp_path / "vfs" / "bucket" / "holes", "r+b") as file:
        file.truncate(1 << 20)
    gone = cached(tmp_path, "gone", b"", "")
    (tmp_path / "vfs" / "bucket" / "gone").unlink()
    mend(tmp_path)
    mend(tmp_path / "nothing")
    assert good.read_text() == '{"Size": 3, "Dirty": false}'
    assert holes.read_text() == gone.read_text() == ""
