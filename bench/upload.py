"""Upload a tree of 20,000 files: the first time, unchanged, and with one file changed; beside
`rsync -a` over ssh to a local sshd, in turns in the same run.

Both are measured as a user's command: a process of their own, from its start to its end, with the
receiver on the same machine and disk.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import sshd
import trees
from table import fresh_server, show

from moorage import Client
from moorage.specs.mounts import Files
from moorage.specs.task import Task

FILES, SIZE = 20_000, 150_000_000
ROUNDS = 3
UNCHANGED_ROUNDS = 7
_SETTLE = 2.5
"""Seconds after which a digest is believed by the file's times."""

Send = Callable[[], None]


def send(tree: Path) -> None:
    """What the measured process does: everything of `moorage apply` up to the submit."""
    with Client() as client:
        client.upload(Task(mounts=[Files(str(tree), "tree")]))


def timed(action: Send) -> float:
    """Seconds."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def by_moorage(tree: Path, environment: dict[str, str]) -> Send:
    """Send by a fresh process."""
    command = [sys.executable, __file__, "--send", str(tree)]
    return lambda: void(subprocess.run(command, env=environment, check=True))


def by_rsync(tree: Path, ssh: list[str], target: Path) -> Send:
    """Send by rsync."""
    shell = " ".join(ssh[:-1])
    command = ["rsync", "-a", "--delete", "-e", shell, f"{tree}/", f"{ssh[-1]}:{target}/"]
    return lambda: void(subprocess.run(command, check=True))


def void(_: object) -> None:
    """Drop a result."""


def change(tree: Path, number: int) -> None:
    """Write one file anew."""
    next(tree.rglob("*.dat")).write_text(f"changed {number}")


def measure(base: Path, ssh: list[str] | None) -> dict[str, dict[str, list[float]]]:
    """Seconds by step and by program."""
    times: dict[str, dict[str, list[float]]] = {}

    def note(step: str, sends: dict[str, Send]) -> None:
        for name, action in sends.items():
            times.setdefault(step, {}).setdefault(name, []).append(timed(action))

    for number in range(ROUNDS):
        tree = base / f"tree{number}"
        trees.grow(tree, FILES, SIZE, seed=number)
        time.sleep(_SETTLE)
        with fresh_server() as environment:
            sends = {"moorage": by_moorage(tree, environment)}
            if ssh:
                sends["rsync -a"] = by_rsync(tree, ssh, base / f"copy{number}")
            note("first", sends)
            for _ in range(UNCHANGED_ROUNDS if number == 0 else 1):
                note("unchanged", sends)
            change(tree, number)
            note("one changed", sends)
    return times


def report(times: dict[str, dict[str, list[float]]]) -> None:
    """Print medians, and how moorage compares."""
    rows = [("", "moorage, s", "rsync -a, s", "ratio")]
    for step, found in times.items():
        ours = statistics.median(found["moorage"])
        theirs = statistics.median(found["rsync -a"]) if "rsync -a" in found else None
        peer = (f"{theirs:.2f}", f"{ours / theirs:.2f}") if theirs else ("-", "-")
        rows.append((step, f"{ours:.2f}", *peer))
    show(f"upload of {FILES:,} files, {SIZE // 10**6} MB (median)", rows)


def main() -> None:
    """Measure with the peer where it can be had."""
    reason = "rsync is not installed" if shutil.which("rsync") is None else sshd.lacking()
    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as name:
        base = Path(name)
        if reason:
            print(f"upload: without its peer, because {reason}")
            report(measure(base, None))
            return
        with sshd.running(base) as ssh:
            report(measure(base, ssh))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--send", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.send:
        send(arguments.send)
    else:
        main()
