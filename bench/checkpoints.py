"""Checkpoints into MOUNT_CACHED by a real job: how long it is blocked, and when the store has all;
beside the disk itself and a bare rclone mount with SkyPilot's published options, in turns in the
same run, against one SeaweedFS on this machine.

One checkpoint is written after the other without a pause, the hardest case. Blocked is the time
from `open` to the return of `close`; durable is counted from the last `close` to the moment at
which the store lists all of them. `--quick`: a tenth of the size.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import seaweed
from mountengines import SKYPILOT, Mounted, rclone, rclone_variables
from table import fresh_server, show

from moorage import Client
from moorage.data.objects.bucket import open_bucket
from moorage.data.rclone import program
from moorage.specs.mounts import Bucket
from moorage.specs.stores.record import Access
from moorage.specs.task import Task

ROUNDS = 3
MB = 10**6
DISK, OURS, BARE = "disk", "MOUNT_CACHED", "rclone as SkyPilot"
_LOOK = 0.1
"""Seconds between two looks into the store."""
_PATIENCE = 900.0
WRITER = """
import json, os, sys, time
top, count, size, block = sys.argv[1], *map(int, sys.argv[2:])
piece = memoryview(os.urandom(block))
blocked = []
for number in range(count):
    began = time.perf_counter()
    file = os.open(f"{top}/step-{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    left = size
    while left > 0:
        left -= os.write(file, piece[:left])
    os.close(file)
    blocked.append(time.perf_counter() - began)
print(json.dumps({"blocked": blocked, "closed": time.time()}), flush=True)
"""


class Plan(NamedTuple):
    """What is written: files, and bytes of each and of each `write`."""

    files: int = 10
    size: int = 500 * MB
    block: int = 2**20

    def words(self, place: str) -> list[str]:
        """The program that writes it there."""
        return [sys.executable, "-c", WRITER, place, *map(str, self)]


class Took(NamedTuple):
    """One round. Seconds."""

    blocked: list[float]
    durable: float | None = None


class Wrote(NamedTuple):
    """What the program says."""

    blocked: list[float]
    closed: float


def wrote(output: str) -> Wrote:
    """From its last line."""
    return Wrote(**json.loads(output.strip().splitlines()[-1]))


def run(words: list[str]) -> Wrote:
    """As a process of the benchmark's."""
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return wrote(done.stdout)


class Watch(threading.Thread):
    """Of a bucket, until all is in it."""

    def __init__(self, access: Access, name: str, plan: Plan) -> None:
        super().__init__(name=name, daemon=True)
        self._bucket = open_bucket(access, name)
        self._sizes = [plan.size] * plan.files
        self.complete = 0.0

    def run(self) -> None:
        """Stores tell nobody."""
        never = threading.Event()
        while [one.size for page in self._bucket.list() for one in page] != self._sizes:
            never.wait(_LOOK)
        self.complete = time.time()


def until_durable(access: Access, name: str, plan: Plan, work: Callable[[], Wrote]) -> Took:
    """Do it, and wait until its bucket has all."""
    variables = {**os.environ, **rclone_variables(access)}

    def ask(verb: str) -> None:
        words = [str(program.find()), verb, f"BENCH:{name}"]
        subprocess.run(words, env=variables, check=True, capture_output=True)

    ask("mkdir")
    watch = Watch(access, name, plan)
    watch.start()
    try:
        done = work()
        watch.join(_PATIENCE)
    finally:
        ask("purge")  # the store gives back the room
    if not watch.complete:
        raise RuntimeError(f"{name} did not get all that was written")
    return Took(done.blocked, max(0.0, watch.complete - done.closed))


def on_disk(plan: Plan, directory: Path) -> Took:
    """A directory of the file system that caches lie on."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        return Took(run(plan.words(place)).blocked)


def by_job(client: Client, access: Access, name: str, plan: Plan) -> Took:
    """A job of moorage's, through server, agent and keeper."""
    mount = Bucket("/tmp/checkpoints", store=seaweed.STORE, bucket=name, mode="cached")
    task = Task(commands=[shlex.join(plan.words("/tmp/checkpoints"))], mounts=[mount])

    def work() -> Wrote:
        (submitted,) = client.submit(task)
        (done,) = client.wait(submitted.id).jobs
        said = b"".join(client.logs(submitted.id)).decode()
        if done.exit_code != 0:
            raise RuntimeError(f"the job ended as {done.state}: {done.message}\n{said}")
        return wrote(said)

    return until_durable(access, name, plan, work)


def by_mount(access: Access, name: str, plan: Plan, directory: Path) -> Took:
    """rclone as SkyPilot starts it; nothing tells a job there when all is in the store."""

    def work() -> Wrote:
        mount = rclone(*SKYPILOT)(access, name, directory)
        mounts.append(mount)
        return run(plan.words(str(mount.place)))

    mounts: list[Mounted] = []
    try:
        return until_durable(access, name, plan, work)
    finally:
        for mount in mounts:
            mount.end()
        shutil.rmtree(directory, ignore_errors=True)


def rounds(plan: Plan) -> dict[str, list[Took]]:
    """All of them, in turns, with a store and a server of their own."""
    took: dict[str, list[Took]] = {DISK: [], OURS: [], BARE: []}
    order = list(took)
    with (
        seaweed.serving() as access,
        fresh_server() as environment,
        Client(home=environment["MOORAGE_HOME"]) as client,
    ):
        seaweed.declare(access, environment)
        directory = Path(environment["MOORAGE_HOME"]).parent
        for number in range(ROUNDS):
            for kind in order:
                name = f"checkpoints-{number}-{order.index(kind)}"
                if kind == DISK:
                    one = on_disk(plan, directory)
                elif kind == OURS:
                    one = by_job(client, access, name, plan)
                else:
                    one = by_mount(access, name, plan, directory / name)
                took[kind].append(one)
            order = [*order[1:], order[0]]
    return took


def report(plan: Plan, took: dict[str, list[Took]]) -> None:
    """Medians of the rounds; the ratio is that of whole rounds, each with its own disk's."""
    rows = [("", "blocked s", "MB/s", "slowest MB/s", "x disk", "durable after s")]
    total = plan.files * plan.size / MB
    for kind, found in took.items():
        blocked = statistics.median(sum(one.blocked) for one in found)
        slowest = plan.size / MB / max(max(one.blocked) for one in found)
        ratio = statistics.median(
            sum(one.blocked) / sum(disk.blocked)
            for one, disk in zip(found, took[DISK], strict=True)
        )
        later = [one.durable for one in found if one.durable is not None]
        rows.append((
            kind, f"{blocked:.2f}", f"{total / blocked:.0f}", f"{slowest:.0f}", f"{ratio:.2f}",
            f"{statistics.median(later):.1f}" if later else "",
        ))  # fmt: skip
    each = f"{plan.files} checkpoints of {plan.size / MB:.0f} MB"
    show(f"{each}, written in pieces of {plan.block // 1024} KiB, medians of {ROUNDS}", rows)


def lacking(plan: Plan) -> str:
    """Why it cannot be measured here; empty where it can."""
    if reason := seaweed.lacking() or program.why_not():
        return reason
    place = seaweed.place() or tempfile.gettempdir()
    # Once in the cache, and once in the store, which needs some more while it writes.
    needed, free = 3 * plan.files * plan.size, shutil.disk_usage(place).free
    if needed > free:
        return f"{place} has {free / MB:,.0f} MB free of the {needed / MB:,.0f} needed"
    return ""


def main(*plans: Plan) -> None:
    """Large writes, as of whole tensors; and fewer small ones, as of a program with a small
    buffer."""
    for plan in plans or (Plan(), Plan(size=50 * MB, block=2**16)):
        if reason := lacking(plan):
            print(f"checkpoints: not measured, because {reason}")
        else:
            report(plan, rounds(plan))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    parser.add_argument("--count", type=int, default=10, help="checkpoints")
    parser.add_argument("--size", type=int, default=500, help="MB of each")
    parser.add_argument("--block", type=int, default=1024, help="KiB of each write")
    given = parser.parse_args()
    megabytes = given.size // 10 if given.quick else given.size
    main(Plan(given.count, megabytes * MB, given.block * 1024))
