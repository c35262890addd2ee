"""HyperQueue as a peer: its server and one worker in one process, as the package from PyPI offers
them, in a virtual environment that is made for the run and removed after it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

_PROGRAM = """
import sys, time
from hyperqueue import Client, Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

slots, jobs = map(int, sys.argv[1:])
with LocalCluster(worker_config=WorkerConfig(cores=slots)) as cluster:
    client = cluster.client()
    for count in (1, jobs):
        job = Job()
        for _ in range(count):
            job.program(["true"], stdout=None, stderr=None)
        began = time.perf_counter()
        client.wait_for_jobs([client.submit(job)])
    print(time.perf_counter() - began)
"""

Run = Callable[[int, int], float]
"""Seconds that so many jobs took, of which so many could run at once: `run(slots, jobs)`."""


@contextlib.contextmanager
def installed() -> Iterator[Run | str]:
    """Runs tasks with HyperQueue; or why it cannot be had."""
    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as place:
        python = str(Path(place) / "bin" / "python")
        for command in (
            [sys.executable, "-m", "venv", place],
            [python, "-m", "pip", "install", "--quiet", "hyperqueue", "cloudpickle", "tqdm"],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"{command[0]} failed"]
                yield f"hyperqueue cannot be installed: {lines[-1]}"
                return

        def run(slots: int, jobs: int) -> float:
            done = subprocess.run(
                [python, "-c", _PROGRAM, str(slots), str(jobs)],
                cwd=place,
                env={**os.environ, "HOME": place},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=True,
            )
            return float(done.stdout.split()[-1])

        yield run
