"""Which rclone is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.data.base import NotHere
from moorage.data.rclone import program


def fake(directory: Path, version: str) -> Path:
    directory.mkdir()
    path = directory / "rclone"
    path.write_text(f"#!/bin/sh\necho 'rclone {version}'\n")
    path.chmod(0o755)
    return path


def test_the_systems_where_it_is_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake(tmp_path / "bin", "v1.71.0")
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    assert program.find() == path


def test_an_old_one_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, wheel = fake(tmp_path / "old", "v1.60.1-DEV"), fake(tmp_path / "scripts", "v1.75.2")
    monkeypatch.setenv("PATH", f"{old.parent}:/usr/bin:/bin")
    monkeypatch.setattr(program.sysconfig, "get_path", lambda _name: str(wheel.parent))
    assert program.find() == wheel


def test_without_a_good_one_it_is_said_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fake(tmp_path / "old", "v1.60.1-DEV")
    monkeypatch.setenv("PATH", f"{old.parent}:/usr/bin:/bin")
    monkeypatch.setattr(program, "_candidates", lambda: iter([old, tmp_path / "none"]))
    with pytest.raises(NotHere) as caught:
        program.find()
    assert "rclone 1.70 or newer" in str(caught.value)
    assert f"{old} is 1.60" in str(caught.value)
    assert "moorage[storage]" in str(caught.value)


def test_some_rclones_mount_with_large_requests(tmp_path: Path) -> None:
    able, other = tmp_path / "able", tmp_path / "other"
    able.write_text("#!/bin/sh\n[ $1 = mount2 ]\n")
    other.write_text("#!/bin/sh\n[ $1 = mount ]\n")
    able.chmod(0o755)
    other.chmod(0o755)
    assert program.mounts_by_large_requests(able)
    assert not program.mounts_by_large_requests(other)
    assert not program.mounts_by_large_requests(tmp_path / "none")
