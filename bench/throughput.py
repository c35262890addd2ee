"""Many short jobs in one submit, 32 at a time: jobs per second, and where their CPU goes, on both
databases, beside a bare `posix_spawn` loop, Slurm and HyperQueue in the same run."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import hyperqueue_cluster
import slurm
from table import fresh_server, show

from moorage import Client
from moorage.specs.resources import Cpu, Range, Resources
from moorage.specs.task import Task

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from postgres import binaries, postgres

SIZES = (2000, 10_000)
SLURM_JOBS = 500
"""As many as Slurm does in half a minute."""
SLOTS = 32
SHELL = "/bin/bash"
PROGRAM = shutil.which("true") or "/bin/true"
BARE = "posix_spawn, bash"
HEADING = ("", "jobs", "jobs/s", "ratio", "server", "agent", "keeper", "the job", "sum")
_TICK = os.sysconf("SC_CLK_TCK")


class Spent(NamedTuple):
    """Seconds: on the wall, and of CPU by process."""

    wall: float
    parts: dict[str, float]


def processes(home: Path) -> dict[str, int]:
    """Pids of the server, its local agent and that one's keeper."""
    server = json.loads((home / "server.json").read_text())["pid"]
    keeper = int((home / "agent" / "keeper.pid").read_text())
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return {"server": server, "agent": int(children[0]), "keeper": keeper}


def cpu(pids: dict[str, int]) -> dict[str, float]:
    """CPU seconds so far; `jobs` are the children that the keeper has waited for."""
    used = {}
    for role, pid in pids.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user, system, children_user, children_system = map(int, fields[11:15])
        used[role] = (user + system) / _TICK
        if role == "keeper":
            used["jobs"] = (children_user + children_system) / _TICK
    return used


def by_moorage(client: Client, pids: dict[str, int], jobs: int, *fleets: str) -> Spent:
    """One submit of `jobs` runs, until the last has ended; on nodes of these fleets, if any."""
    before, began = cpu(pids), time.perf_counter()
    share = Resources(cpu=Cpu(Range(min=(os.cpu_count() or 1) / SLOTS)))
    task = Task(commands=["true"], resources=share, fleets=list(fleets))
    newest = client.submit(*[task] * jobs)[-1]
    client.wait(newest.id)
    while left := client.page(active=True, limit=1).runs:
        client.wait(left[0].id)
    wall = time.perf_counter() - began
    after = cpu(pids)
    return Spent(wall, {role: after[role] - before[role] for role in after})


def by_spawn(jobs: int, command: list[str]) -> Spent:
    """The same program, started and waited for, as many at a time as there are CPUs."""
    before, began = os.times(), time.perf_counter()
    running = 0
    for _ in range(jobs):
        if running == os.cpu_count():
            os.wait()
            running -= 1
        os.posix_spawn(command[0], command, os.environ)
        running += 1
    for _ in range(running):
        os.wait()
    wall, after = time.perf_counter() - began, os.times()
    own = after.user + after.system - before.user - before.system
    children = after.children_user + after.children_system
    children -= before.children_user + before.children_system
    return Spent(wall, {"keeper": own, "jobs": children})


class Report:
    """Rows of the table; ratios are to the bare loop over the shell, which ran last before."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = [HEADING]
        self._bare: dict[int, float] = {}

    def spent(self, name: str, jobs: int, spent: Spent) -> None:
        """Jobs per second, then milliseconds of CPU per job."""
        if name == BARE:
            self._bare[jobs] = spent.wall
        parts = [spent.parts.get(role) for role in ("server", "agent", "keeper", "jobs")]
        each = ["-" if part is None else f"{part / jobs * 1e3:.2f}" for part in parts]
        total = sum(part for part in parts if part is not None)
        self._add(name, jobs, spent.wall, *each, f"{total / jobs * 1e3:.2f}")

    def peer(self, name: str, jobs: int, wall: float) -> None:
        """Of what others do, only the time is known."""
        self._add(name, jobs, wall, *["-"] * 5)

    def _add(self, name: str, jobs: int, wall: float, *rest: str) -> None:
        nearest = min(self._bare, key=lambda size: abs(size - jobs))
        ratio = (jobs / wall) / (nearest / self._bare[nearest])
        self.rows.append((name, f"{jobs:,}", f"{jobs / wall:.0f}", f"{ratio:.2f}", *rest))


def ours(report: Report, name: str, database: str) -> None:
    """Each size on a server of its own, after a short warm-up, with the bare loops around it."""
    for jobs in SIZES:
        report.spent(BARE, jobs, by_spawn(jobs, [SHELL, "-c", "eval true"]))
        report.spent("posix_spawn, true", jobs, by_spawn(jobs, [PROGRAM]))
        with (
            fresh_server(None, database) as environment,
            Client(home=environment["MOORAGE_HOME"]) as client,
        ):
            pids = processes(Path(environment["MOORAGE_HOME"]))
            by_moorage(client, pids, 20)
            report.spent(name, jobs, by_moorage(client, pids, jobs))


def on_postgres(report: Report) -> None:
    """The same with the database beside it; what that one spends is not in the sum."""
    if binaries() is None:
        print("throughput: without PostgreSQL, which is not installed")
        return
    with postgres() as server:
        ours(report, "moorage, PostgreSQL", server.new_database())


def peers(report: Report) -> None:
    """Others on the same machine, one after the other."""
    if reason := slurm.lacking():
        print(f"throughput: without Slurm, because {reason}")
    else:
        with (
            tempfile.TemporaryDirectory(prefix="moorage-bench-") as place,
            slurm.running(Path(place), SLOTS) as cluster,
        ):
            report.peer("Slurm, tuned", SLURM_JOBS, cluster.array(SLURM_JOBS))
    with hyperqueue_cluster.installed() as run:
        if isinstance(run, str):
            print(f"throughput: without HyperQueue, because {run}")
        else:
            report.peer("HyperQueue, in process", SIZES[0], run(SLOTS, SIZES[0]))


def main() -> None:
    """Ours on both databases, then the others."""
    report = Report()
    ours(report, "moorage, SQLite", "")
    on_postgres(report)
    peers(report)
    show("`true` in one submit, 32 slots; CPU in ms a job", report.rows)


if __name__ == "__main__":
    main()
