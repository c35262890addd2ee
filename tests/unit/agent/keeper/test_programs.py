from __future__ import annotations

import os
from pathlib import Path

from moorage.agent.keeper.programs import find


def test_the_first_that_may_be_run_is_found(tmp_path: Path) -> None:
    for name, mode in (("one", 0o644), ("two", 0o755), ("three", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").touch()
        (tmp_path / name / "tool").chmod(mode)
    (tmp_path / "four" / "tool").mkdir(parents=True)
    path = ":".join(f"{tmp_path}/{name}" for name in ("none", "four", "one", "two/", "three"))
    assert find("tool", path) == f"{tmp_path}/two/tool"
    assert find("no-such", path) is None


def test_a_relative_path_is_left_to_the_shell(tmp_path: Path) -> None:
    (tmp_path / "tool").touch(0o755)
    for path in ("", ".", f"{tmp_path}:", f":{tmp_path}", f"{tmp_path}:bin"):
        assert find("tool", path) is None


def test_a_name_with_a_slash_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "tool").touch(0o755)
    (tmp_path / "text").touch(0o644)
    assert find(f"{tmp_path}/tool", "") == f"{tmp_path}/tool"
    assert find(f"{tmp_path}/text", "") is None
    assert find(f"{tmp_path}/\0", "") is None
    assert find(os.fspath(tmp_path), "") is None
