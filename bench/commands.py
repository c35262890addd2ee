"""CPU of the commands that people type most, and the server's cold start, beside a bare Python."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from table import MOORAGE, cpu_of, fresh_server, milliseconds, show

from moorage import Client
from moorage.specs.task import Task

ROUNDS = 10
RUNS = 1000


def cold_start() -> float:
    """Seconds from the start of a server process in an empty home to its first answer."""
    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as home:
        environment = {**os.environ, "MOORAGE_HOME": str(Path(home) / "home")}
        began = time.perf_counter()
        subprocess.run([*MOORAGE, "ps"], env=environment, check=True, capture_output=True)
        took = time.perf_counter() - began
        subprocess.run(
            [*MOORAGE, "server", "stop"], env=environment, check=True, capture_output=True
        )
        return took


def main() -> None:
    """Fills a store with finished and waiting runs first: `ps` is measured with 1,000."""
    python = [cpu_of([sys.executable, "-c", "pass"], dict(os.environ)) for _ in range(ROUNDS)]
    usage = [cpu_of([*MOORAGE, "--help"], dict(os.environ)) for _ in range(ROUNDS)]
    starts = [cold_start() for _ in range(3)]
    with fresh_server() as environment, Client(home=environment["MOORAGE_HOME"]) as client:
        runs = client.submit(*[Task(commands=["true"])] * RUNS)
        client.wait(runs[-1].id)
        listing = [cpu_of([*MOORAGE, "ps", "-a"], environment) for _ in range(ROUNDS)]
    show(
        "commands",
        [
            ("", "median (p95), ms"),
            ("python -c pass, CPU", milliseconds(python)),
            ("moorage --help, CPU", milliseconds(usage)),
            (f"moorage ps -a, {RUNS} runs, CPU", milliseconds(listing)),
            ("first command in an empty home, wall", milliseconds(starts)),
        ],
    )


if __name__ == "__main__":
    main()
