"""Many hosts behind one server, as a user has them: hosts of the test bed on this machine, a fleet
file, jobs. Needs root. The hosts share this machine's cores: what all do at once is slower here
than on machines of their own."""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from table import MOORAGE, show
from throughput import by_moorage

from moorage import Client

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from testbed.bed import Bed, bed_of
from testbed.host import Host

FLEET = """\
type: fleet
name: lab
placement: cluster
ssh_config:
  identity_file: {key}
  host_key: accept-new
{jump}  hosts: [{hosts}]
"""
JUMP = "  proxy_jump: {{hostname: {host}, user: root, identity_file: {key}}}\n"
HELLO = "type: task\nfleets: [lab]\ncommands: [echo hello]\n"
GANG = "type: task\nnodes: {nodes}\nfleets: [lab]\ncommands: ['date +%s.%N']\n"
_SAID = re.compile(r"^\[rank \d+\] (\d+\.\d+)$", re.MULTILINE)


class Gang(NamedTuple):
    """Seconds from the command to the last rank's first word, and from the first rank's to it."""

    running: float
    skew: float


class User:
    """Somebody with a home, a fleet file and the command."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.home = place / "home"
        self._environment = {**os.environ, "MOORAGE_HOME": str(self.home)}

    def run(self, *arguments: str) -> str:
        """What the command prints."""
        done = subprocess.run(
            [*MOORAGE, *arguments],
            env=self._environment,
            cwd=self.place,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def apply(self, name: str, text: str) -> tuple[float, str]:
        """Seconds, and what is printed, of applying a file with that text."""
        (self.place / name).write_text(text)
        began = time.monotonic()
        out = self.run("apply", "-y", "-f", name)
        return time.monotonic() - began, out

    def gang(self, nodes: int) -> Gang:
        """One rank on each of so many hosts, which share this machine's clock."""
        began = time.time()
        _, out = self.apply("gang.yml", GANG.format(nodes=nodes))
        said = [float(time) for time in _SAID.findall(out)]
        assert len(said) == nodes, out
        return Gang(max(said) - began, max(said) - min(said))


def fleet(bed: Bed, hosts: Sequence[Host], jump: Host | None = None) -> str:
    """The file of a fleet; by way of `jump`, if one is given."""
    rows = ", ".join(f"{{hostname: {host.address}, user: root}}" for host in hosts)
    way = "" if jump is None else JUMP.format(host=jump.address, key=bed.key)
    return FLEET.format(key=bed.key, jump=way, hosts=rows)


def connecting(user: User, text: str) -> list[str]:
    """Cells: the first apply to a job's output, then the second apply."""
    first, _ = user.apply("fleet.yml", text)
    job, _ = user.apply("hello.yml", HELLO)
    again, _ = user.apply("fleet.yml", text)
    return [f"{first:.1f}", f"{job:.2f}", f"{again:.2f}"]


def measure(bed: Bed, place: Path, jobs: int) -> None:
    """Print both tables."""
    *hosts, last = bed.hosts
    rows = [["hosts", "first apply, s", "then a job, s", "second apply, s"]]
    user = User(place / "jump")
    user.place.mkdir()
    # Nothing of these hosts reaches the server, and it reaches only the jump host.
    bed.partition(hosts, bed.here)
    try:
        name = f"{len(hosts)}, by one jump host and back through it"
        rows.append([name, *connecting(user, fleet(bed, hosts, last))])
    finally:
        user.run("fleet", "delete", "lab", "-y")
        user.run("server", "stop")
        bed.heal()
    user = User(place / "direct")
    user.place.mkdir()
    try:
        rows.append([f"{len(hosts)}", *connecting(user, fleet(bed, hosts))])
        show("a fleet file to a job's output", rows)
        working(user, len(hosts), jobs)
    finally:
        user.run("fleet", "delete", "lab", "-y")
        user.run("server", "stop")


def working(user: User, hosts: int, jobs: int) -> None:
    """Gangs and a sweep on connected hosts."""
    gangs = [user.gang(hosts) for _ in range(5)]
    rows = [
        ("", "median", "worst"),
        _row(f"gang of {hosts}: command to all running, s", [gang.running for gang in gangs]),
        _row(f"gang of {hosts}: first rank to last, s", [gang.skew for gang in gangs]),
    ]
    with Client(home=user.home) as client:
        pids = {"server": json.loads((user.home / "server.json").read_text())["pid"]}
        by_moorage(client, pids, 20, "lab")
        spent = by_moorage(client, pids, jobs, "lab")
    rows.append((f"{jobs} jobs: jobs/s", f"{jobs / spent.wall:.0f}", ""))
    rows.append(("of it server CPU, ms a job", f"{spent.parts['server'] / jobs * 1e3:.2f}", ""))
    show(f"{hosts} hosts", rows)


def _row(name: str, values: Sequence[float]) -> tuple[str, str, str]:
    return name, f"{statistics.median(values):.2f}", f"{max(values):.2f}"


def main() -> None:
    """One bed for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=500)
    options = parser.parse_args()
    with (
        bed_of(options.hosts + 1) as bed,
        tempfile.TemporaryDirectory(prefix="moorage-bench-") as place,
    ):
        measure(bed, Path(place), options.jobs)


if __name__ == "__main__":
    main()
