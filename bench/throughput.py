"""Many short jobs in one submit, 32 at a time: jobs per second, and where their CPU goes, beside a
bare `posix_spawn` loop over the same shell in the same run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from table import fresh_server, show

from moorage import Client
from moorage.specs.resources import Cpu, Range, Resources
from moorage.specs.task import Task

SIZES = (500, 2000)
SLOTS = 32
SHELL = "/bin/bash"
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


def by_moorage(client: Client, pids: dict[str, int], jobs: int) -> Spent:
    """One submit of `jobs` runs, until the last has ended."""
    before, began = cpu(pids), time.perf_counter()
    share = Resources(cpu=Cpu(Range(min=(os.cpu_count() or 1) / SLOTS)))
    newest = client.submit(*[Task(commands=["true"], resources=share)] * jobs)[-1]
    client.wait(newest.id)
    while left := client.page(active=True, limit=1).runs:
        client.wait(left[0].id)
    wall = time.perf_counter() - began
    after = cpu(pids)
    return Spent(wall, {role: after[role] - before[role] for role in after})


def by_spawn(jobs: int) -> Spent:
    """The same shell, started and waited for, two at a time."""
    before, began = os.times(), time.perf_counter()
    running = 0
    for _ in range(jobs):
        if running == os.cpu_count():
            os.wait()
            running -= 1
        os.posix_spawn(SHELL, [SHELL, "-c", "eval true"], os.environ)
        running += 1
    for _ in range(running):
        os.wait()
    wall, after = time.perf_counter() - began, os.times()
    own = after.user + after.system - before.user - before.system
    children = after.children_user + after.children_system
    children -= before.children_user + before.children_system
    return Spent(wall, {"keeper": own, "jobs": children})


def row(name: str, jobs: int, spent: Spent) -> tuple[str, ...]:
    """Jobs per second, then milliseconds of CPU per job."""
    parts = [spent.parts.get(role) for role in ("server", "agent", "keeper", "jobs")]
    each = ["-" if part is None else f"{part / jobs * 1e3:.2f}" for part in parts]
    total = sum(part for part in parts if part is not None)
    return (f"{name}, {jobs}", f"{jobs / spent.wall:.0f}", *each, f"{total / jobs * 1e3:.2f}")


def main() -> None:
    """Each size with its own bare loop right after it."""
    heading = ("", "jobs/s", "server", "agent", "keeper", "jobs", "sum")
    rows: list[tuple[str, ...]] = [heading]
    with fresh_server() as environment, Client(home=environment["MOORAGE_HOME"]) as client:
        pids = processes(Path(environment["MOORAGE_HOME"]))
        by_moorage(client, pids, 20)
        for jobs in SIZES:
            rows.append(row("moorage", jobs, by_moorage(client, pids, jobs)))
            rows.append(row("posix_spawn", jobs, by_spawn(jobs)))
    show("`true` in one submit; CPU in ms a job", rows)


if __name__ == "__main__":
    main()
