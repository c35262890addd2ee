"""What every benchmark shares: a server of its own, percentiles, a table."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from moorage.store.base import Store
from moorage.store.leader import Identity
from moorage.store.postgres import open_postgres
from moorage.store.sqlite import open_sqlite

MOORAGE = [sys.executable, "-m", "moorage"]


@contextlib.contextmanager
def fresh_server(
    fill: Callable[[Store], None] | None = None, database: str = "", *options: str
) -> Iterator[dict[str, str]]:
    """An environment whose MOORAGE_HOME holds a started server, over a store that `fill` has
    written to before; all is removed at the end. The home lies in memory where there is enough of
    it: what is measured is the program, and a disk that others use is not the same twice."""
    with tempfile.TemporaryDirectory(prefix="moorage-bench-", dir=_place()) as directory:
        home = Path(directory) / "home"
        environment = {**os.environ, "MOORAGE_HOME": str(home), "MOORAGE_DATABASE": database}
        if fill is not None:
            _prepare(home, database, fill)
        start = [*MOORAGE, "server", "start", *options]
        subprocess.run(start, env=environment, check=True, stdout=subprocess.DEVNULL)
        try:
            yield environment
        finally:
            _end(environment)


def _place() -> str | None:
    memory = Path("/dev/shm")
    enough = memory.is_dir() and shutil.disk_usage(memory).free > 4 * 2**30
    return str(memory) if enough else None


def _prepare(home: Path, database: str, fill: Callable[[Store], None]) -> None:
    home.mkdir(mode=0o700)
    if database:
        store: Store = open_postgres(database)
        store.leadership(Identity("bench", "http://127.0.0.1:1", "1")).acquire()
    else:
        store = open_sqlite(home / "server" / "moorage.db")
    try:
        fill(store)
    finally:
        store.close()


def _end(environment: dict[str, str]) -> None:
    """Nothing may go on after a benchmark, not even a job that never ends by itself. The server
    goes first: it would start what waits."""
    stop = [*MOORAGE, "server", "stop"]
    subprocess.run(stop, env=environment, check=False, stdout=subprocess.DEVNULL)
    with contextlib.suppress(OSError, ValueError):
        keeper = int((Path(environment["MOORAGE_HOME"]) / "agent" / "keeper.pid").read_text())
        watched = os.pidfd_open(keeper)
        for task in Path(f"/proc/{keeper}/task").iterdir():
            for child in (task / "children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
        if not select.select([watched], [], [], 1)[0]:
            os.kill(keeper, signal.SIGKILL)  # it keeps the ends of jobs for an agent to come
        os.close(watched)


def cpu_of(command: Sequence[str], environment: dict[str, str]) -> float:
    """CPU seconds (user and system) of one command and its children."""
    before = os.times()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of all lie; the nearest one."""
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


def milliseconds(values: Sequence[float]) -> str:
    """`median (p95)` in milliseconds."""
    return f"{statistics.median(values) * 1e3:.0f} ({percentile(values, 0.95) * 1e3:.0f})"


def show(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns; the first one is the heading."""
    load = os.getloadavg()[0]
    print(f"\n{title} (load {load:.1f} on {os.cpu_count()} CPUs)")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)))
