from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from moorage.agent.removal import remove


def test_files_links_and_trees_go_and_what_links_point_to_stays(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "out").symlink_to(kept)
    (tmp_path / "tree" / "deep" / "closed").mkdir(mode=0)
    (tmp_path / "tree" / "deep" / "x").write_text("x")
    (tmp_path / "tree" / "deep").chmod(0o500)
    names = ("file", "empty", "link", "tree", "never-was")
    assert asyncio.run(remove(tmp_path / name for name in names)) == []
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").exists()


@pytest.mark.ordinary
def test_what_cannot_be_removed_is_named(tmp_path: Path) -> None:
    (tmp_path / "held" / "tree" / "x").mkdir(parents=True)
    (tmp_path / "held").chmod(0o500)
    try:
        (text,) = asyncio.run(remove([tmp_path / "held" / "tree"]))
        assert "cannot be removed" in text
    finally:
        (tmp_path / "held").chmod(0o700)
