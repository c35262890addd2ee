"""What one start costs in the keeper: a driver on its socket, without server and agent, beside a
bare `posix_spawn` loop over the same program in the same run.

    python bench/keeper.py [-n 500] [-c 32] [-r 3] [--place DIR] [-- COMMAND]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
from table import show

from moorage.agent.keeping import start_keeper
from moorage.agent.node import isolation as isolations
from moorage.agent.process import prepare
from moorage.protocol.agent import Isolation, Launch

_TICK = os.sysconf("SC_CLK_TCK")
_KERNEL_THREADS_PARENT = 2


class Spent(NamedTuple):
    """Seconds."""

    wall: float
    user: float
    system: float
    jobs: float
    kernel: float


def fields(pid: int) -> list[str]:
    """Fields of /proc/pid/stat from the state on; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def kernel_threads() -> float:
    """CPU seconds of all threads of the kernel that live now."""
    found = (fields(int(each.name)) for each in Path("/proc").iterdir() if each.name.isdigit())
    own = (got for got in found if got and int(got[1]) == _KERNEL_THREADS_PARENT)
    return sum(int(got[11]) + int(got[12]) for got in own) / _TICK


def used(pid: int) -> Spent:
    """So far, by the keeper of that pid, and by the children it has waited for."""
    user, system, *children = (int(value) / _TICK for value in fields(pid)[11:15])
    return Spent(time.perf_counter(), user, system, sum(children), kernel_threads())


class Driver:
    """A client that speaks the keeper's protocol and nothing else."""

    def __init__(self, home: Path, isolation: Isolation) -> None:
        self.home, self._isolation = home, isolation
        start_keeper(home)
        self.pid = int((home / "keeper.pid").read_text())
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(home / "keeper.sock"))
        self._lines = self._socket.makefile("rb")
        self._next = 1

    def close(self) -> None:
        """End the keeper."""
        self._say({"id": 0, "op": "exit"})
        while self._lines.readline():
            pass
        self._lines.close()
        self._socket.close()

    def _say(self, message: dict[str, object]) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def requests(self, count: int, command: str) -> list[tuple[str, bytes]]:
        """Keys and the lines that start them; their directories are made here."""
        made = []
        for number in range(self._next, self._next + count):
            launch = Launch(
                run=1, run_name="r", user="u", job=number, index=0, attempt=1, commands=[command]
            )
            key = f"{number}.1.0"
            directory = self.home / "attempts" / key
            directory.mkdir(parents=True, mode=0o700)
            output = self.home / "logs" / key / "output.log"
            request = prepare(launch, directory, [], output, self._isolation)
            line = {"id": number, "op": "spawn", **msgspec.structs.asdict(request)}
            made.append((key, json.dumps(line).encode() + b"\n"))
        self._next += count
        return made

    def run(self, count: int, slots: int, command: str) -> Spent:
        """Start and forget that many, `slots` at a time."""
        waiting = self.requests(count, command)[::-1]
        before = used(self.pid)
        self._socket.sendall(b"".join(waiting.pop()[1] for _ in range(min(slots, count))))
        ended = 0
        while ended < count:
            message = json.loads(self._lines.readline())
            if "error" in message:
                raise SystemExit(f"the keeper says: {message['error']}")
            if message.get("event") != "exit":
                continue
            ended += 1
            forget = {"id": 0, "op": "forget", "key": message["key"]}
            following = waiting.pop()[1] if waiting else b""
            self._socket.sendall(json.dumps(forget).encode() + b"\n" + following)
        after = used(self.pid)
        return Spent(*(new - old for new, old in zip(after, before, strict=True)))


def bare(count: int, program: str) -> Spent:
    """The same program, started and waited for, as many at a time as there are processors."""
    began, before, kernel = time.perf_counter(), os.times(), kernel_threads()
    running = 0
    for _ in range(count):
        if running == os.cpu_count():
            os.wait()
            running -= 1
        os.posix_spawn(program, [program], os.environ)
        running += 1
    for _ in range(running):
        os.wait()
    after = os.times()
    children = after.children_user + after.children_system
    children -= before.children_user + before.children_system
    return Spent(
        time.perf_counter() - began,
        after.user - before.user,
        after.system - before.system,
        children,
        kernel_threads() - kernel,
    )


def row(name: str, count: int, rounds: list[Spent]) -> tuple[str, ...]:
    """Starts a second, then milliseconds of CPU a start; medians."""
    rate = statistics.median(count / spent.wall for spent in rounds)

    def each(*names: str) -> str:
        sums = (sum(getattr(spent, name) for name in names) for spent in rounds)
        return f"{statistics.median(sums) / count * 1e3:.2f}"

    parts = (each("user"), each("system"), each("user", "system"), each("jobs"), each("kernel"))
    return (name, f"{rate:.0f}", *parts)


@contextmanager
def driver(place: str, isolation: Isolation) -> Iterator[Driver]:
    """With a home of its own below `place`."""
    home = Path(tempfile.mkdtemp(prefix="moorage-keeper-", dir=place))
    try:
        made = Driver(home, isolation)
        try:
            yield made
        finally:
            made.close()
    finally:
        shutil.rmtree(home)


def main() -> None:
    """Every kind of isolation in turn, `-r` times over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=500, help="starts a round")
    parser.add_argument("-c", type=int, default=32, help="at a time")
    parser.add_argument("-r", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--place", default="/dev/shm", help="where the homes are")
    parser.add_argument("command", nargs="?", default="true", help="what a job runs")
    options = parser.parse_args()
    whole = isolations.probe(Path(options.place))
    kinds = {
        "whole": whole,
        "no mounts": msgspec.structs.replace(whole, mounts="not tried"),
        "no groups": msgspec.structs.replace(whole, cgroup="not tried"),
        "neither": msgspec.structs.replace(whole, cgroup="not tried", mounts="not tried"),
    }
    found: dict[str, list[Spent]] = {name: [] for name in [*kinds, "posix_spawn"]}
    program = shutil.which(options.command.split()[0]) or "/bin/true"
    for _ in range(options.r):
        for name, isolation in kinds.items():
            with driver(options.place, isolation) as made:
                made.run(options.c, options.c, options.command)
                found[name].append(made.run(options.n, options.c, options.command))
        found["posix_spawn"].append(bare(options.n, program))
    heading = ("", "starts/s", "user", "system", "keeper", "jobs", "kernel threads")
    rows = [heading, *(row(name, options.n, rounds) for name, rounds in found.items())]
    show(f"`{options.command}`, {options.c} at a time; CPU in ms a start", rows)


if __name__ == "__main__":
    main()
