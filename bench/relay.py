"""The store that comes with the server, from its own machine and through the relay that leads
there from other nodes: 256 MiB in one object and 500 objects of 64 KiB, up and down, in turns.

What costs is said for both sides: CPU seconds of the relay's end on the node and of the server
(all threads, user and system) beside those of the copy itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import copy_objects
import seaweed
from copy_objects import MIB, OURS, Sample, grow, timed
from table import MOORAGE, fresh_server, show

ROUNDS = 5
BUCKET = "bench-relay"
WAYS = ("direct", "relay")
_PATIENCE = 60
_TICKS = os.sysconf("SC_CLK_TCK")


class Through(NamedTuple):
    """One copy, and what it cost elsewhere."""

    seconds: float
    copy: float
    relay: float
    server: float


def samples(quick: bool) -> list[Sample]:
    """All of them."""
    share = 5 if quick else 1
    return [
        Sample("256 MiB", 1, 256 * MIB // share),
        Sample("500 x 64 KiB", 500 // share, 64 * 1024),
    ]


def used(pid: int) -> float:
    """CPU seconds of a process so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS


@contextlib.contextmanager
def relaying(home: Path, server: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Pid and port of the relay's end, as an agent elsewhere starts it."""
    home.mkdir(mode=0o700)
    token = home / "token"
    token.touch(mode=0o600)
    token.write_text(server["token"])
    ready, told = os.pipe()
    words = ["-m", "moorage.agent.uplink.relayend", "--home", str(home), "--port", "0",
             "--server", server["url"], "--ready-fd", str(told)]  # fmt: skip
    silent = subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, *words], pass_fds=[told], stderr=silent)
    os.close(told)
    try:
        if not select.select([ready], [], [], _PATIENCE)[0]:
            raise RuntimeError("the relay does not listen")
        yield process.pid, int((home / "relay").read_text().split()[1])
    finally:
        os.close(ready)
        process.terminate()
        process.wait()


def environment(home: Mapping[str, str], endpoint: str) -> dict[str, str]:
    """Of a copy; the keys are those that the server gives its users."""
    from moorage.cli.client import Client
    from moorage.specs.stores.record import Access

    with Client(home=Path(home["MOORAGE_HOME"])) as client:
        access = client.transport.call("GET", "/v1/stores/moorage/access", Access)
    return {
        **{name: value for name, value in home.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "S3_ENDPOINT_URL": endpoint or access.endpoint,
        "AWS_ACCESS_KEY_ID": access.secrets["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": access.secrets["secret_access_key"],
        "AWS_REGION": access.region or "us-east-1",
    }


def measured(sample: Sample, base: Path) -> dict[tuple[str, str], list[Through]]:
    """All copies, by direction and way."""
    times: dict[tuple[str, str], list[Through]] = {}
    source, into = base / "source", base / "into"
    grow(source, sample)
    with fresh_server() as home:
        subprocess.run(
            [*MOORAGE, "store", "start"], env=home, check=True, stdout=subprocess.DEVNULL
        )
        server = json.loads((Path(home["MOORAGE_HOME"]) / "server.json").read_text())
        with relaying(base / "node", server) as (relay, port):
            variables = {
                "direct": environment(home, ""),
                "relay": environment(home, f"http://127.0.0.1:{port}"),
            }
            subprocess.run(
                [copy_objects.found("s5cmd"), "mb", f"s3://{BUCKET}"],
                env=variables["direct"], check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip

            def note(direction: str, way: str, one: str, other: str) -> None:
                before = used(relay), used(server["pid"])
                took = timed(copy_objects.command(OURS, one, other), variables[way])
                after = used(relay), used(server["pid"])
                costs = after[0] - before[0], after[1] - before[1]
                times.setdefault((direction, way), []).append(
                    Through(took.seconds, took.cpu, *costs)
                )

            for number in range(ROUNDS):
                for way in WAYS if number % 2 else WAYS[::-1]:
                    place = f"s3://{BUCKET}/{way}{number}"
                    note("up", way, str(source), place)
                    note("down", way, place, str(into))
                    subprocess.run(["diff", "-rq", source, into], check=True)
                    shutil.rmtree(into)
    shutil.rmtree(source)
    shutil.rmtree(base / "node")
    return times


def report(sample: Sample, times: Mapping[tuple[str, str], list[Through]]) -> None:
    """Medians, and each way beside the direct one."""
    rows = [("", "way", "seconds", "copy CPU s", "relay CPU s", "server CPU s", "to direct")]
    for direction in ("up", "down"):
        base = statistics.median(one.seconds for one in times[direction, "direct"])
        for way in WAYS:
            middle = [statistics.median(part) for part in zip(*times[direction, way], strict=True)]
            shown = [f"{part:.2f}" for part in (*middle, middle[0] / base)]
            rows.append((direction, way, *shown))
    show(f"{sample.name}, medians", rows)


def main(quick: bool = False) -> None:
    """Measure what can be measured here."""
    reason = seaweed.lacking() or ("" if copy_objects.found("s5cmd") else "s5cmd is missing")
    if reason:
        print(f"relay of the own store: not measured, because {reason}")
        return
    for sample in samples(quick):
        with tempfile.TemporaryDirectory(prefix="moorage-bench-", dir=seaweed.place()) as name:
            report(sample, measured(sample, Path(name)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of everything")
    main(parser.parse_args().quick)
