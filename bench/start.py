"""Submit to start on an idle machine: from the client's call to the job's first line, beside a
plain subprocess of the same client in the same run."""

from __future__ import annotations

import subprocess
import time

from table import fresh_server, milliseconds, percentile, show

from moorage import Client
from moorage.specs.task import Task

ROUNDS = 50
COMMAND = "echo $EPOCHREALTIME"


def by_moorage(client: Client) -> float:
    """Seconds until the job of a fresh run is at its first command."""
    task = Task(commands=[COMMAND], shell="bash")
    began = time.time()
    (run,) = client.submit(task)
    client.wait(run.id)
    return float(b"".join(client.logs(run.id))) - began


def by_subprocess() -> float:
    """The same command as a child of this process."""
    began = time.time()
    done = subprocess.run(["bash", "-c", COMMAND], capture_output=True, check=True)
    return float(done.stdout) - began


def main() -> None:
    """Alternates both, so that a busy moment hits both."""
    ours, plain = [], []
    with fresh_server() as environment, Client(home=environment["MOORAGE_HOME"]) as client:
        by_moorage(client)
        for _ in range(ROUNDS):
            ours.append(by_moorage(client))
            plain.append(by_subprocess())
    ratio = percentile(ours, 0.5) / percentile(plain, 0.5)
    show(
        f"submit to first line, {ROUNDS} rounds",
        [
            ("", "median (p95), ms", "ratio"),
            ("moorage", milliseconds(ours), f"{ratio:.1f}"),
            ("subprocess", milliseconds(plain), "1"),
        ],
    )


if __name__ == "__main__":
    main()
