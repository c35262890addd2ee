"""What `durable: fsync` costs where nothing is to be uploaded: `fsync` of other files, other
system calls, and the start of a job; with and without it, in turns in the same run.

    python bench/fsyncs.py [-r 5] [--place DIR]

The disk is the one of `--place`; `/dev/shm` has no disk, so that its row is the cost alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from table import show

from moorage.agent.keeping import ExitRecord, Keeper
from moorage.agent.node import isolation as isolations
from moorage.agent.process import prepare
from moorage.protocol.agent import Launch

PROBE = """
import json, os, sys, time
def each(path, times, write):
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    found = []
    for _ in range(times):
        if write:
            os.pwrite(file, b"x", 0)
        began = time.perf_counter()
        os.fsync(file)
        found.append(time.perf_counter() - began)
    return sorted(found)[times // 2]
def calls(times):
    began = time.perf_counter()
    for _ in range(times):
        os.getppid()
    return (time.perf_counter() - began) / times
each("/dev/shm/x", 100, False)  # whoever answers has started now
print(json.dumps({"memory": each("/dev/shm/x", 2000, False), "disk": each("x", 60, True),
                  "call": calls(100_000)}))
"""
STARTS = 20


class Bench:
    """One keeper, and what it is asked."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._isolation = isolations.probe(home)
        self._numbers = iter(range(1, 1_000_000))
        self._ended: dict[str, asyncio.Future[ExitRecord]] = {}
        self._keeper = Keeper(home, lambda key, record: self._ended[key].set_result(record))

    async def open(self) -> None:
        await self._keeper.connect()

    async def close(self) -> None:
        await self._keeper.dismiss()
        await self._keeper.close()

    async def run(self, command: str, held: bool) -> tuple[float, str]:
        """Seconds from the request to the end, and the output."""
        number = next(self._numbers)
        directory = self._home / "attempts" / f"{number}.1.0"
        directory.mkdir(parents=True)
        launch = Launch(run=1, run_name="r", user="u", job=number, index=0, attempt=1,
                        commands=[command])  # fmt: skip
        output = self._home / "logs" / f"{number}"
        request = prepare(launch, directory, [], output, self._isolation)
        if held:
            request = msgspec.structs.replace(request, fsyncs=[str(directory / "mounts" / "0")])
        ended = self._ended[request.key] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        await self._keeper.spawn(request)
        await ended
        return time.perf_counter() - began, output.read_text()


async def measure(home: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    bench = Bench(home)
    await bench.open()
    found: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    program = f"exec {sys.executable} -c {shlex.quote(PROBE)}"
    for _ in range(rounds):
        for name, held in (("without", False), ("with", True)):
            _, text = await bench.run(program, held)
            starts = [(await bench.run("exec /bin/true", held))[0] for _ in range(STARTS)]
            found[name].append({**json.loads(text), "start": statistics.median(starts)})
    await bench.close()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--place", default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moorage-bench-", dir=given.place) as place:
        found = asyncio.run(measure(Path(place) / "agent", given.rounds))
    rows = [["", *found, "ratio"]]
    for key, what in (
        ("memory", "fsync in /dev/shm"),
        ("disk", "fsync of a changed file on disk"),
        ("call", "another system call (getppid)"),
        ("start", "start to end of /bin/true"),
    ):
        middle = {name: statistics.median(one[key] for one in all) for name, all in found.items()}
        ratio = middle["with"] / middle["without"]
        rows.append([what, *(f"{1e6 * one:.2f} us" for one in middle.values()), f"{ratio:.2f}"])
    show("durable: fsync, where nothing is uploaded", rows)


if __name__ == "__main__":
    main()
