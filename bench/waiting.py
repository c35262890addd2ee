"""What a long past and a long queue cost: submit to start, the commands that people type, memory
and boot, over an empty store and over one with finished and waiting runs, in turns."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from table import MOORAGE, cpu_of, fresh_server, milliseconds, show

from moorage import Client
from moorage.specs.resources import Cpu, Range, Resources
from moorage.specs.task import Task

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from filled import fill

FINISHED, WAITING = 100_000, 10_000
ROUNDS = 40
COMMANDS = {
    "ps": ["ps"],
    "ps -n 100": ["ps", "-n", "100"],
    "show": ["show", "probe"],
    "logs": ["logs", "probe"],
}
SHARE = Resources(cpu=Cpu(Range(min=0.1)))


def submit_to_start(client: Client) -> float:
    """Seconds from the client's call to the job's first command."""
    task = Task(name="probe", commands=["echo $EPOCHREALTIME"], shell="bash", resources=SHARE)
    began = time.time()
    (run,) = client.submit(task)
    client.wait(run.id)
    return float(b"".join(client.logs(run.id))) - began


def requests(client: Client) -> dict[str, Callable[[], object]]:
    """Questions to the server, by what a user would type."""
    return {
        "GET runs, newest 100": lambda: client.page(limit=100),
        "GET runs?active": lambda: client.page(active=True, limit=100),
        "GET runs?state=failed": lambda: client.page(state="failed", limit=100),
        "GET runs/NAME": lambda: client.run("probe"),
        "GET info": client.info,
    }


def resident(home: str) -> float:
    """Megabytes that the server has in memory."""
    pid = json.loads((Path(home) / "server.json").read_text())["pid"]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def restart(environment: dict[str, str]) -> float:
    """Seconds that a start over this store takes."""
    quiet = {"env": environment, "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run([*MOORAGE, "server", "stop"], **quiet)
    began = time.perf_counter()
    subprocess.run([*MOORAGE, "server", "start"], **quiet)
    return time.perf_counter() - began


def timed(action: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def compare() -> None:
    """Both servers are up at the same time and take turns."""
    cpus = os.cpu_count() or 1
    full = partial(fill, finished=FINISHED, waiting=WAITING, cpus=cpus)
    found: dict[str, tuple[list[float], list[float]]] = {}
    with contextlib.ExitStack() as stack:
        places = [stack.enter_context(fresh_server(filling)) for filling in (None, full)]
        clients = [stack.enter_context(Client(home=e["MOORAGE_HOME"])) for e in places]
        for client in clients:
            submit_to_start(client)
        for number in range(ROUNDS):
            for side, client in enumerate(clients):
                note(found, "submit to start", side, submit_to_start(client))
                for name, ask in requests(client).items():
                    note(found, name, side, timed(ask))
                for name, words in COMMANDS.items() if number < ROUNDS // 8 else ():
                    spent = cpu_of([*MOORAGE, *words], places[side])
                    note(found, f"moorage {name}, CPU", side, spent)
    rows = [("median (p95), ms", "empty", "filled", "ratio")]
    for name, (empty, filled) in found.items():
        ratio = statistics.median(filled) / statistics.median(empty)
        rows.append((name, milliseconds(empty), milliseconds(filled), f"{ratio:.2f}"))
    show(f"{FINISHED:,} finished and {WAITING:,} waiting runs", rows)


def note(
    found: dict[str, tuple[list[float], list[float]]], name: str, side: int, value: float
) -> None:
    """Keep a value of one side."""
    found.setdefault(name, ([], []))[side].append(value)


def sizes() -> None:
    """Memory of a server that was just started, and how long the start took."""
    rows = [("", "server, MB", "start, s")]
    for finished, waiting in ((0, 0), (10_000, 0), (0, 10_000), (FINISHED, WAITING)):
        filling = partial(fill, finished=finished, waiting=waiting, cpus=os.cpu_count() or 1)
        with fresh_server(filling) as environment:
            took = restart(environment)
            used = resident(environment["MOORAGE_HOME"])
        name = f"{finished:,} finished, {waiting:,} waiting"
        rows.append((name, f"{used:.0f}", f"{took:.2f}"))
    show("memory and boot", rows)


def main() -> None:
    """Both tables."""
    compare()
    sizes()


if __name__ == "__main__":
    main()
