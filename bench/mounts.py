"""Buckets as directories: MOUNT and MOUNT_CACHED beside bare rclone, s3fs and SkyPilot's published
options, on one SeaweedFS, in turns in the same run; and what an idle mount costs a job.

moorage's modes are measured by the code with which its agent mounts for a job, without the job,
whose start would blur the smallest times; the job has a table of its own. Each measurement has a
mount of its own with an empty cache, so that neither the kernel nor the engine has seen anything
before. SkyPilot's MOUNT on S3 is goofys, which cannot be installed; on ARM it is bare rclone.

`--quick`: an eighth of everything. `--only WORD`: measurements whose name has that word.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import seaweed
from idlemounts import report_idle
from mountengines import Engine, Mounted, engines, rclone_variables
from table import show

from moorage.data.objects.bucket import open_bucket
from moorage.data.rclone import program
from moorage.specs.stores.record import Access

ROUNDS = 3
MIB = 2**20
SMALL = 10 * 1024


class Took(NamedTuple):
    """One measurement: how long, the engine's CPU seconds, and until all was in the bucket."""

    seconds: float
    cpu: float
    stored: float = 0.0


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    large: int = 1024 * MIB
    small: int = 2000
    listed: tuple[int, int] = (2000, 20_000)
    reads: int = 2000
    modules: int = 3000

    def quick(self) -> Sizes:
        """An eighth."""
        few, many = self.listed
        return Sizes(
            self.large // 8, self.small // 8, (few // 8, many // 8), self.reads // 8,
            self.modules // 8,
        )  # fmt: skip


class Measure(NamedTuple):
    """`bucket`: what it reads; empty where it writes into one of its own."""

    name: str
    bucket: str
    run: Callable[[Path], None]


def write_large(size: int) -> Callable[[Path], None]:
    """One file, from begin to end, and its close."""

    return lambda place: write_large_file(place / "large", size)


def write_large_file(path: Path, size: int) -> None:
    """A MiB at a time."""
    block = os.urandom(MIB)
    with open(path, "wb", buffering=0) as file:
        for _ in range(size // MIB):
            file.write(block)


def write_small(count: int) -> Callable[[Path], None]:
    """Files of 10 KiB in one directory, one after the other."""

    def run(place: Path) -> None:
        (place / "d").mkdir()
        content = os.urandom(SMALL)
        for number in range(count):
            (place / "d" / f"f{number:05d}").write_bytes(content)

    return run


def read_all(place: Path) -> None:
    """Every file of one directory, in the order of its listing."""
    for path in sorted((place / "d").iterdir()):
        with open(path, "rb", buffering=0) as file:
            while file.read(MIB):
                pass


def list_long(place: Path) -> None:
    """`ls -l`."""
    subprocess.run(["ls", "-l", place / "d"], stdout=subprocess.DEVNULL, check=True)


def read_at_random(count: int) -> Callable[[Path], None]:
    """fio: 4 KiB each, one after the other."""

    def run(place: Path) -> None:
        subprocess.run(
            ["fio", "--name=r", f"--filename={place}/d/large", "--rw=randread", "--bs=4k",
             "--ioengine=psync", f"--number_ios={count}", "--readonly", "--allrandrepeat=1",
             "--norandommap", "--output-format=json"],
            stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip

    return run


def import_package(place: Path) -> None:
    """A Python package that imports all of its modules."""
    code = f"import sys; sys.path.insert(0, {str(place)!r}); import d"
    subprocess.run([sys.executable, "-I", "-B", "-c", code], check=True)


def measures(sizes: Sizes) -> Iterator[Measure]:
    """All of them."""
    few, many = sizes.listed
    yield Measure(f"write {sizes.large // MIB:,} MiB", "", write_large(sizes.large))
    yield Measure(f"read {sizes.large // MIB:,} MiB", "large", read_all)
    yield Measure(f"write {sizes.small:,} files of 10 KiB", "", write_small(sizes.small))
    yield Measure(f"read {few:,} files of 10 KiB", "few", read_all)
    yield Measure(f"ls -l of {few:,}", "few", list_long)
    yield Measure(f"ls -l of {many:,}", "many", list_long)
    if shutil.which("fio"):
        name = f"{sizes.reads:,} random reads of 4 KiB"
        yield Measure(name, "large", read_at_random(sizes.reads))
    else:
        print("random reads are not measured: fio is not installed", file=sys.stderr)
    yield Measure(f"import of {sizes.modules:,} modules", "modules", import_package)


def fill(store: Store, sizes: Sizes, wanted: set[str]) -> None:
    """The buckets that are read."""
    few, many = sizes.listed
    content = os.urandom(SMALL)
    if "large" in wanted:
        store.fill("large", {})
        with tempfile.NamedTemporaryFile(dir=seaweed.place()) as file:
            write_large_file(Path(file.name), sizes.large)
            open_bucket(store.access, "large").put_file("d/large", file.name, sizes.large)
    if "few" in wanted:
        store.fill("few", {f"d/f{n:05d}": content for n in range(few)})
    if "many" in wanted:
        store.fill("many", {f"d/f{n:05d}": b"x" for n in range(many)})
    if "modules" in wanted:
        store.fill("modules", package(sizes.modules))


def package(count: int) -> dict[str, bytes]:
    """A package `d` of so many modules, a hundred in each of its packages."""
    body = "\n\n".join(f"def f{n}(x):\n    return [x + {n}, '{n}']" for n in range(10))
    found: dict[str, bytes] = {}
    for number in range(count):
        group = f"p{number // 100:03d}"
        found[f"d/{group}/m{number:05d}.py"] = body.encode()
    for group in sorted({key.split("/")[1] for key in found}):
        names = [Path(key).stem for key in found if f"/{group}/m" in key]
        found[f"d/{group}/__init__.py"] = f"from . import {', '.join(names)}\n".encode()
    groups = sorted({key.split("/")[1] for key in found})
    found["d/__init__.py"] = f"from . import {', '.join(groups)}\n".encode()
    return found


class Store:
    """One SeaweedFS and what is in it."""

    def __init__(self, access: Access) -> None:
        self.access = access

    def rclone(self, *words: str) -> None:
        """Make and remove buckets: with one go the files that the store keeps of it."""
        variables = {**os.environ, **rclone_variables(self.access)}
        subprocess.run([str(program.find()), *words], env=variables, check=True)

    def fill(self, name: str, objects: Mapping[str, bytes]) -> None:
        """A bucket with these."""
        self.rclone("mkdir", f"BENCH:{name}")
        bucket = open_bucket(self.access, name)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: bucket.put(*item), objects.items()))

    def count(self, name: str) -> tuple[int, int]:
        """Objects and their bytes."""
        found = [one for page in open_bucket(self.access, name).list() for one in page]
        return len(found), sum(one.size for one in found)


@contextmanager
def mounted(engine: Engine, store: Store, bucket: str, base: Path) -> Iterator[Mounted]:
    """With nothing kept of an earlier one."""
    directory = base / "mount"
    directory.mkdir()
    made = engine.mount(store.access, bucket, directory)
    try:
        yield made
    finally:
        made.end()
        shutil.rmtree(directory)


def read(engine: Engine, measure: Measure, store: Store, base: Path) -> Took:
    """One measurement that changes nothing."""
    with mounted(engine, store, measure.bucket, base) as made:
        before, began = made.cpu(), time.perf_counter()
        measure.run(made.place)
        took = time.perf_counter() - began
        return Took(took, made.cpu() - before)


def write(engine: Engine, measure: Measure, store: Store, base: Path, expected: int) -> Took:
    """One measurement into a bucket of its own, which goes afterwards."""
    store.rclone("mkdir", "BENCH:written")
    try:
        with mounted(engine, store, "written", base) as made:
            before, began = made.cpu(), time.perf_counter()
            measure.run(made.place)
            took = time.perf_counter() - began
            made.flush()
            while store.count("written")[1] < expected:
                # No engine but ours tells; a question costs the store little.
                if time.perf_counter() - began > 900:
                    raise RuntimeError(f"{engine.name}: what was written is not in the bucket")
                time.sleep(0.05)
            stored = time.perf_counter() - began
            return Took(took, made.cpu() - before, stored)
    finally:
        store.rclone("purge", "BENCH:written")


def measured(
    measure: Measure, expected: int, found: list[Engine], store: Store, base: Path
) -> dict[Engine, list[Took]]:
    """All engines in turns."""
    times: dict[Engine, list[Took]] = {}
    able = [one for one in found if measure.bucket or one.writes]
    for _ in range(ROUNDS):
        able = [*able[1:], able[0]]
        for engine in able:
            if measure.bucket:
                took = read(engine, measure, store, base)
            else:
                took = write(engine, measure, store, base, expected)
            times.setdefault(engine, []).append(took)
    return times


def report(measure: Measure, times: Mapping[Engine, list[Took]], order: list[Engine]) -> None:
    """Medians; each beside the bare rclone of its kind."""
    rows = [("", "seconds", "CPU s", "beside", "it / that", "CPU it / that", "stored after s")]

    def middle(engine: Engine, of: Callable[[Took], float]) -> float:
        return statistics.median(of(one) for one in times[engine])

    names = {engine.name: engine for engine in order}
    for engine in (one for one in order if one in times):
        base = names[engine.beside]
        seconds, cpu = middle(engine, lambda t: t.seconds), middle(engine, lambda t: t.cpu)
        stored = middle(engine, lambda t: t.stored)
        rows.append((
            engine.name, f"{seconds:.2f}", f"{cpu:.2f}", base.name,
            f"{seconds / middle(base, lambda t: t.seconds):.2f}",
            f"{cpu / max(0.01, middle(base, lambda t: t.cpu)):.2f}",
            f"{stored:.2f}" if stored else "",
        ))  # fmt: skip
    show(f"{measure.name}, medians of {ROUNDS}", rows)


def lacking() -> str:
    """Why nothing can be mounted here; empty where it can."""
    return seaweed.lacking() or program.why_not()


def main(quick: bool = False, only: str = "") -> None:
    """Measure what can be measured here."""
    if reason := lacking():
        print(f"mounts: not measured, because {reason}")
        return
    sizes = Sizes().quick() if quick else Sizes()
    wanted = [one for one in measures(sizes) if only in one.name]
    with (
        seaweed.serving() as access,
        tempfile.TemporaryDirectory(prefix="moorage-bench-", dir=seaweed.place()) as name,
    ):
        store = Store(access)
        fill(store, sizes, {one.bucket for one in wanted})
        order = engines()
        for measure in wanted:
            expected = sizes.large if "MiB" in measure.name else sizes.small * SMALL
            report(measure, measured(measure, expected, order, store, Path(name)), order)
    if only in "idle":
        report_idle()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="an eighth of everything")
    parser.add_argument("--only", default="", help="a word of the names of measurements")
    arguments = parser.parse_args()
    main(arguments.quick, arguments.only)
