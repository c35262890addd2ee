"""What every benchmark shares: a server of its own, percentiles, a table."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

MOORAGE = [sys.executable, "-m", "moorage"]


@contextlib.contextmanager
def fresh_server() -> Iterator[dict[str, str]]:
    """An environment whose MOORAGE_HOME holds a started server; all is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as home:
        environment = {**os.environ, "MOORAGE_HOME": str(Path(home) / "home")}
        subprocess.run([*MOORAGE, "server", "start"], env=environment, check=True)
        try:
            yield environment
        finally:
            subprocess.run([*MOORAGE, "server", "stop"], env=environment, check=False)


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
