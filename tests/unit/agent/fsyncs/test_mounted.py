"""What is looked through for files that are not in the bucket yet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moorage.agent.fsyncs.mounted import FAILURES, Mounted, noted
from moorage.agent.fsyncs.remote import Remote


def test_below_or_in_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("top", "a/one", "a/b/two"):
        (tmp_path / name).touch()
    assert set(noted(str(tmp_path), "", deep=True)) == {"top", "a/one", "a/b/two"}
    assert set(noted(str(tmp_path), "a", deep=False)) == {"a/one"}
    assert list(noted(str(tmp_path), "gone", deep=True)) == []


def test_what_cannot_be_looked_at_is_not_taken_for_stored(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        list(noted(str(tmp_path), "x" * 300, deep=True))


def test_a_job_that_tries_for_ever_does_not_fill_the_disk(tmp_path: Path) -> None:
    mount = Mounted(str(tmp_path))
    with open(tmp_path / "model", "w") as file:
        mount.note_failure(file.fileno(), "no\nanswer")
        assert (tmp_path / FAILURES).read_text().endswith(" model: no answer\n")
        for _ in range(300):
            mount.note_failure(file.fileno(), "x" * 10_000)
    assert 2**18 <= (tmp_path / FAILURES).stat().st_size < 2**18 + 11_000


def test_a_file_whose_name_the_kernel_forgot_is_not_taken_for_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fsync` returned at once then, and nothing of it was in the bucket."""
    notes, place = tmp_path / "notes", tmp_path / "at"
    (notes / "d").mkdir(parents=True)
    (place / "d").mkdir(parents=True)
    monkeypatch.setattr(Remote, "cache", lambda remote: ("", str(notes)))
    mount = Mounted(str(tmp_path))
    with open(place / "new", "w") as file:
        assert mount._name(file.fileno(), "/") == "new"
        os.link(place / "new", place / "other")
        (place / "new").unlink()
        os.link(place / "other", place / "new")  # another entry of the directory
        (place / "other").unlink()
        assert str(Path(f"/proc/self/fd/{file.fileno()}").readlink()) == f"{place}/new (deleted)"
        assert mount._name(file.fileno(), "/") == "new"
        (place / "new").rename(place / "d" / "final")
        (notes / "d" / "final").write_text('{"Dirty": true}')
        (notes / "older").write_text('{"Dirty": true}')
        assert mount._name(file.fileno(), "/") == "d/final"
        (place / "d" / "final").unlink()
        (notes / "d" / "final").unlink()
        assert mount._name(file.fileno(), "/") is None
