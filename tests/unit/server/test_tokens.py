from __future__ import annotations

import stat
from pathlib import Path

import pytest

from moorage.server import tokens


def test_a_token_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "token"
    first = tokens.read_or_make(path, "node")
    assert first.startswith("moorage_node_")
    assert len(first) > 50
    assert tokens.read_or_make(path, "node") == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_empty_file_is_no_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("\n")
    assert tokens.read_or_make(path, "user") != ""


def test_a_secret_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    path.write_text("old")
    path.chmod(0o644)
    tokens.write_secret(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["server.json"]


def test_nothing_is_left_where_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="space"):
        tokens.write_secret(tmp_path / "token", "x")
    assert list(tmp_path.iterdir()) == []
