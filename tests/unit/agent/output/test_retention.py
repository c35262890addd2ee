"""Output of finished attempts goes by age and by size, and nobody is told that there was none."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from moorage.agent.output import retention
from moorage.agent.output.logs import Logs
from moorage.agent.output.retention import sweep
from moorage.protocol.agent import LogData, ReadLog, Sweep, Swept

KIB = 1024


def output(root: Path, key: str, size: int, age: float = 0.0) -> None:
    directory = root / key
    directory.mkdir(parents=True)
    path = directory / "output.log"
    path.write_bytes(b"x" * size)
    then = time.time() - age
    os.utime(path, (then, then))


def swept(root: Path, busy: tuple[str, ...] = (), **limits: float) -> Swept:
    asked = Sweep(1, limits.get("age", 0.0), int(limits.get("total", 0)), bool(limits.get("dry")))
    return sweep(root, asked, lambda key: key in busy, lambda _: 7)


def left(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def test_without_limits_all_stays(tmp_path: Path) -> None:
    output(tmp_path, "1.1.0", 10, age=1e9)
    assert swept(tmp_path) == Swept(1, 0, 0)
    assert swept(tmp_path / "none", age=1) == Swept(1, 0, 0)


def test_the_oldest_go_first_and_busy_ones_never(tmp_path: Path) -> None:
    for number, age in ((1, 400), (2, 300), (3, 200), (4, 100)):
        output(tmp_path, f"{number}.1.0", 8 * KIB, age)
    assert swept(tmp_path, ("1.1.0",), total=17 * KIB) == Swept(1, 1, 8 * KIB)
    assert left(tmp_path) == ["1.1.0", "3.1.0", "4.1.0"]
    assert swept(tmp_path, ("1.1.0",), age=150) == Swept(1, 1, 8 * KIB)
    assert left(tmp_path) == ["1.1.0", "4.1.0"]


def test_a_dry_run_counts_and_removes_nothing(tmp_path: Path) -> None:
    output(tmp_path, "1.1.0", 8 * KIB, age=400)
    assert swept(tmp_path, age=100, dry=True) == Swept(1, 1, 8 * KIB)
    assert left(tmp_path) == ["1.1.0"]
    assert retention.removed(tmp_path, "1.1.0") is None


def test_what_is_no_output_is_left_alone(tmp_path: Path) -> None:
    output(tmp_path, "notes", 10, age=1e9)
    assert swept(tmp_path, age=1).attempts == 0


def test_the_list_of_removed_ones_does_not_grow_for_ever(tmp_path: Path) -> None:
    lines = [f"{number}.1.0 5\n" for number in range(2 * retention.REMEMBERED + 1)]
    (tmp_path / "removed").write_text("".join(lines))
    swept(tmp_path, age=1)
    assert (tmp_path / "removed").read_text().splitlines()[
        0
    ] == f"{retention.REMEMBERED + 1}.1.0 5"
    assert retention.removed(tmp_path, f"{2 * retention.REMEMBERED}.1.0") == 5


async def _read(root: Path, then: Callable[[Logs], None]) -> list[LogData]:
    logs = Logs(root, asyncio.get_running_loop(), 0)
    pages: list[LogData] = []
    try:
        then(logs)
        assert (await logs.sweep(Sweep(1, 0.001, 0), lambda key: key == "3.1.0")).attempts == 1
        for key in ("1.1.0", "2.1.0", "3.1.0", "4.1.0"):
            logs.read(ReadLog(5, key), lambda page: pages.append(page()))
    finally:
        logs.close()
    return pages


def test_readers_are_told_that_output_was_removed(tmp_path: Path) -> None:
    """1 is finished, 2 still writes, of 3 the server does not know the end, 4 never was."""
    for number in (1, 2, 3):
        output(tmp_path, f"{number}.1.0", 5000, age=100)
    pages = asyncio.run(_read(tmp_path, lambda logs: logs.open("2.1.0") and None))
    assert pages[0] == LogData(5, 5000, b"", ended=True)
    assert [len(page.data) for page in pages] == [0, 5000, 5000, 0]
    assert [page.missing for page in pages] == [False, False, False, True]
