"""Notes that rclone was killed in the middle of, or before it wrote them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from moorage.data.rclone.holes import Span
from moorage.data.rclone.notes import mend

MEGA = 1 << 20


def nothing(_path: Path, _file: int, gaps: list[Span]) -> None:
    raise AssertionError(f"nobody needs {gaps}")


def cached(cache: Path, name: str, content: bytes, note: str) -> Path:
    for kind in ("vfs", "vfsMeta"):
        (cache / kind / "bucket" / name).parent.mkdir(parents=True, exist_ok=True)
    (cache / "vfs" / "bucket" / name).write_bytes(content)
    place = cache / "vfsMeta" / "bucket" / name
    place.write_text(note)
    return place


def noted(cache: Path, name: str) -> dict[str, object]:
    told: dict[str, object] = json.loads((cache / "vfsMeta" / "bucket" / name).read_text())
    return told


@pytest.mark.parametrize("torn", ["", '{"Size": 3, "Dir', "[]"])
def test_a_torn_note_says_that_its_file_is_to_be_uploaded(tmp_path: Path, torn: str) -> None:
    note = cached(tmp_path, "a/new", b"abc", torn)
    mend(tmp_path, nothing)
    told = json.loads(note.read_text())
    assert (told["Size"], told["Rs"], told["Dirty"]) == (3, [{"Pos": 0, "Size": 3}], True)
    # No object's: rclone would take it for one that it knows, and let O_CREAT make it empty.
    assert told["Fingerprint"] == ""
    assert [path.name for path in note.parent.iterdir()] == ["new"]


def test_what_can_be_read_stays_and_what_cannot_be_known_is_not_made_up(tmp_path: Path) -> None:
    good = cached(tmp_path, "good", b"abc", '{"Size": 3, "Dirty": false}')
    holes = cached(tmp_path, "holes", b"", "")
    with open(tmp_path / "vfs" / "bucket" / "holes", "r+b") as file:
        file.truncate(MEGA)
    gone = cached(tmp_path, "gone", b"", "")
    (tmp_path / "vfs" / "bucket" / "gone").unlink()
    mend(tmp_path, nothing)
    mend(tmp_path / "nothing", nothing)
    assert good.read_text() == '{"Size": 3, "Dirty": false}'
    assert holes.read_text() == gone.read_text() == ""


@pytest.mark.parametrize(
    "told",
    [
        {"Size": 0, "Rs": None, "Fingerprint": "of the object that it replaces"},
        {"Size": 2, "Rs": [{"Pos": 0, "Size": 2}], "Fingerprint": ""},
    ],
)
def test_what_was_written_after_the_note_belongs_to_the_file(
    tmp_path: Path, told: dict[str, object]
) -> None:
    cached(tmp_path, "f", b"written", json.dumps({**told, "Dirty": True}))
    mend(tmp_path, nothing)
    after = noted(tmp_path, "f")
    assert (after["Size"], after["Rs"]) == (7, [{"Pos": 0, "Size": 7}])
    assert after["Fingerprint"] == told["Fingerprint"]


def test_only_what_was_never_here_is_fetched(tmp_path: Path) -> None:
    asked = []

    def fetch(path: Path, file: int, gaps: list[Span]) -> None:
        asked.append((str(path), gaps))
        for begin, end in gaps:
            os.pwrite(file, b"o" * (end - begin), begin)

    told = {"Size": MEGA, "Rs": [{"Pos": 0, "Size": 4}], "Fingerprint": "x", "Dirty": True}
    cached(tmp_path, "d/f", b"here", json.dumps(told))
    content = tmp_path / "vfs" / "bucket" / "d" / "f"
    with open(content, "r+b") as file:
        file.seek(500_001)
        file.write(b"later" * 2000)
        file.truncate(MEGA)
        file.seek(MEGA)
        file.write(b"\0appended")
    os.utime(content, ns=(10**18, 10**18 + 7))
    mend(tmp_path, fetch)
    mend(tmp_path, nothing)
    assert asked == [("d/f", [(4, 500_001), (510_001, MEGA)])]
    assert content.read_bytes()[500_000:500_007] == b"olaterl"
    assert content.read_bytes()[MEGA - 1 :] == b"o\0appended"
    after = noted(tmp_path, "d/f")
    assert (after["Rs"], after["Size"]) == ([{"Pos": 0, "Size": MEGA + 9}], MEGA + 9)
    assert after["ModTime"] == "2001-09-09T01:46:40.000000007Z"


def test_a_file_that_was_being_renamed_keeps_its_note(tmp_path: Path) -> None:
    told = {
        "ModTime": "2001-09-09T03:46:40.123456789+02:00", "Size": 3, "Dirty": True,
        "Rs": [{"Pos": 0, "Size": 3}], "Fingerprint": "",
    }  # fmt: skip
    contents = tmp_path / "vfs" / "bucket"
    for name, over in (("new", None), ("over", '{"Size": 9, "Dirty": false}')):
        cached(tmp_path, f"{name}.tmp", b"abc", json.dumps(told))
        if over:
            cached(tmp_path, name, b"*********", over)
        (contents / f"{name}.tmp").rename(contents / name)
        os.utime(contents / name, ns=(10**18, 10**18 + 123_456_789))
        mend(tmp_path, nothing)
        assert noted(tmp_path, name) == told
        assert (contents / name).read_bytes() == b"abc"
        assert not (tmp_path / "vfsMeta" / "bucket" / f"{name}.tmp").exists()


def test_one_that_was_renamed_before_it_was_closed_keeps_its_note(tmp_path: Path) -> None:
    told = {"ModTime": "2001-09-09T01:46:40Z", "Size": 0, "Rs": None, "Dirty": True}
    cached(tmp_path, "f.tmp", b"abc", json.dumps(told))
    cached(tmp_path, "f", b"*********", '{"Size": 9, "Dirty": false}')
    contents = tmp_path / "vfs" / "bucket"
    (contents / "f.tmp").rename(contents / "f")
    mend(tmp_path, nothing)
    after = noted(tmp_path, "f")
    assert (after["Size"], after["Rs"]) == (3, [{"Pos": 0, "Size": 3}])
    assert (contents / "f").read_bytes() == b"abc"


def test_a_file_without_a_note_is_not_thrown_away(tmp_path: Path) -> None:
    cached(tmp_path, "f", b"abc", "").unlink()
    cached(tmp_path, "just made", b"", "").unlink()
    mend(tmp_path, nothing)
    assert noted(tmp_path, "f")["Dirty"] is True
    assert not (tmp_path / "vfsMeta" / "bucket" / "just made").exists()


def test_what_is_in_the_bucket_and_was_about_to_change_is_fetched_again(tmp_path: Path) -> None:
    shorter = cached(tmp_path, "shorter", b"", '{"Size": 3, "Dirty": false}')
    other = cached(tmp_path, "other", b"abc", '{"Size": 3, "Dirty": false}')
    os.utime(other, (1, 1))
    mend(tmp_path, nothing)
    assert not shorter.exists()
    assert not other.exists()
    assert list((tmp_path / "vfs" / "bucket").iterdir()) == []
