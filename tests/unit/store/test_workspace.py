"""What a kill left goes; what somebody works in stays, whoever sweeps, and however often."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from moorage.store.workspace import sweep, workspace

WORKER = """
import sys
from pathlib import Path
from moorage.store.workspace import workspace
with workspace(Path(sys.argv[1]), "backup") as work:
    (work / "snapshot").write_bytes(b"x" * 1000)
    print(work.name, flush=True)
    sys.stdin.read()
"""


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_a_kill_leaves_goes_with_the_next_and_what_lives_stays(tmp_path: Path) -> None:
    kept = ["backup.20261121", "moorage.db", "restore.old"]
    for name in kept:
        (tmp_path / name).mkdir()
    command = [sys.executable, "-c", WORKER, tmp_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as dead, subprocess.Popen(command, **pipes) as alive:
        for process in (dead, alive):
            assert process.stdout is not None
        lost, held = dead.stdout.readline(), alive.stdout.readline()
        dead.kill()
        dead.wait()
        assert lost.decode().strip() in names(tmp_path)
        with workspace(tmp_path, "restore") as mine:
            here = names(tmp_path)
            assert set(here) == {*kept, held.decode().strip(), mine.name}
            assert mine.stat().st_mode & 0o777 == 0o700
            sweep(tmp_path)
            assert names(tmp_path) == here
        alive.communicate(b"")
        assert alive.returncode == 0
    assert names(tmp_path) == kept


@pytest.mark.parametrize("threads", [8])
def test_nobody_loses_its_directory_to_another_that_sweeps(tmp_path: Path, threads: int) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(50):
                with workspace(tmp_path, "backup") as mine:
                    (mine / "file").write_text(str(number))
                    sweep(tmp_path)
                    assert (mine / "file").read_text() == str(number)
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert failures == []
    assert names(tmp_path) == []
