"""The file of a backup: whole under its name, or not there, whatever ends the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from moorage.cli import server_backup
from moorage.errors import MoorageError

WRITER = """
import sys
from pathlib import Path
from moorage.cli.server_backup import _beside
with _beside(Path(sys.argv[1])) as target:
    target.write(b"x" * 100_000)
    target.flush()
    print("half", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["nameless", "hidden"])
def file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where filesystems know files without names, and where they do not."""
    if request.param == "hidden":
        monkeypatch.setattr(server_backup, "_OPEN", str(tmp_path / "none"))
    return tmp_path / "b.tar"


def test_it_is_there_when_it_is_whole(file: Path) -> None:
    with server_backup._beside(file) as target:
        target.write(b"whole")
        assert not file.exists()
    assert file.read_bytes() == b"whole"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_what_came_meanwhile_is_kept(file: Path) -> None:
    with (
        pytest.raises(MoorageError, match="exists by now"),
        server_backup._beside(file) as target,
    ):
        target.write(b"ours")
        file.write_bytes(b"theirs")
    assert file.read_bytes() == b"theirs"
    assert list(file.parent.iterdir()) == [file]


def test_kill_9_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, tmp_path / "b.tar"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.kill()
    assert list(tmp_path.iterdir()) == []
