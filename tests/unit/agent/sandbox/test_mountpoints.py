from __future__ import annotations

from pathlib import Path

from moorage.agent.sandbox import mountpoints


def attempt(place: Path, name: str) -> str:
    directory = place / "attempts" / name
    directory.mkdir(parents=True)
    return str(directory)


def test_what_was_made_goes_unless_it_is_used(tmp_path: Path) -> None:
    one, two = attempt(tmp_path, "1.1.0"), attempt(tmp_path, "2.1.0")
    outer, file = tmp_path / "a", tmp_path / "f"
    inner, full = outer / "b", tmp_path / "full"
    inner.mkdir(parents=True)
    full.mkdir()
    (full / "content").touch()
    file.touch()
    mountpoints.remember(one, [str(outer)])
    mountpoints.remember(one, [str(inner), str(outer), str(full), str(file)])
    mountpoints.remember(two, [str(inner)])
    assert mountpoints.made_by_others(str(tmp_path / "attempts"), "1.1.0") == {str(inner)}
    mountpoints.remove_made(one)
    assert (inner.exists(), full.exists(), file.exists()) == (True, True, False)
    mountpoints.remove_made(two)
    assert not inner.exists()
    mountpoints.remove_made(two)


def test_what_is_mounted_on_is_never_removed(tmp_path: Path) -> None:
    one = attempt(tmp_path, "1.1.0")
    mountpoints.remember(one, ["/proc"])
    mountpoints.remove_made(one)
    assert Path("/proc/self").exists()
