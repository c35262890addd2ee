"""What a mount that a job never touches costs it, from submission to its end, and phase by phase;
in moorage's own store, with whole jobs through server, agent and keeper."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Mapping

from table import MOORAGE, fresh_server, show

from moorage import Client
from moorage.protocol.agent import Phase
from moorage.specs.mounts import Bucket, BucketMode
from moorage.specs.task import Task

ROUNDS = 7
KINDS: Mapping[str, BucketMode | None] = {
    "no mount": None, "idle MOUNT": "mount", "idle MOUNT_CACHED": "cached",
}  # fmt: skip
PHASES = ("fetch", "flush", "unmount", "clean")


def job(client: Client, mode: BucketMode | None) -> tuple[float, list[Phase]]:
    """Seconds from its queueing to its end, as the server saw them; and its phases."""
    mounts = [Bucket("/tmp/idle", bucket="idle", managed=True, mode=mode)] if mode else []
    (run,) = client.submit(Task(commands=["true"], mounts=list(mounts)))
    (done,) = client.wait(run.id).jobs
    if done.exit_code != 0 or done.ended_at is None:
        raise RuntimeError(
            f"a job with {mode or 'no mount'} ended as {done.state}: {done.message}"
        )
    return done.ended_at - done.queued_at, done.attempts[-1].phases


def report_idle() -> None:
    """Kinds of jobs in turns."""
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    phases: dict[tuple[str, str], list[float]] = {}
    with fresh_server() as environment, Client(home=environment["MOORAGE_HOME"]) as client:
        start = [*MOORAGE, "store", "start"]
        subprocess.run(start, env=environment, check=True, stdout=subprocess.DEVNULL)
        for mode in KINDS.values():
            job(client, mode)
        for _ in range(ROUNDS):
            for kind, mode in KINDS.items():
                took, passed = job(client, mode)
                seconds[kind].append(took)
                for one in passed:
                    length = (one.ended or one.began) - one.began
                    phases.setdefault((kind, one.name), []).append(length)
    rows = [("", "whole job, ms", "more than none", *(f"{name}, ms" for name in PHASES))]
    none = statistics.median(seconds["no mount"])
    for kind, took in seconds.items():
        whole = statistics.median(took)
        parts = (statistics.median(phases.get((kind, name), [0.0])) for name in PHASES)
        rows.append((
            kind, f"{whole * 1e3:.0f}", f"{(whole - none) * 1e3:.0f}",
            *(f"{part * 1e3:.0f}" for part in parts),
        ))  # fmt: skip
    show(f"a job whose mount stays idle, medians of {ROUNDS}", rows)
    print("  SkyPilot's wait for an idle MOUNT_CACHED, by its script: 11,000 ms and more")


if __name__ == "__main__":
    report_idle()
