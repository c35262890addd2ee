"""What each fault of a host does to its jobs: by `on_node_loss`, alone and as ranks of a gang.

Hosts of the test bed (needs root), a short lease, one fault after the other. Each fault strikes a
host with six jobs at work: three alone there, three with one of two ranks there. Told are the
seconds until the server found it, what became of each job (the attempts of one that was begun
again), attempts that were at work when a later one was, and what lay on the host at the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from table import show

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from moorage.specs.retry import OnNodeLoss
from system.loss_harness import FAULTS, LEASE, TROUBLES, Lab, lab_of
from testbed.shape import Shape

POLICIES: tuple[OnNodeLoss, ...] = ("restart", "wait", "lost")
KINDS = {"single": 1, "gang": 2}
HEAD = ["fault", "down", "lost", "back", *(f"{k} {p}" for k in KINDS for p in POLICIES)]
DISK, MEMORY = 384 << 20, 1 << 30
VICTIM = "lab-0"


@dataclass
class Strike:
    """One fault, from the jobs' begin to their end."""

    lab: Lab
    fault: str
    runs: dict[tuple[str, OnNodeLoss], int] = field(default_factory=dict)
    began: float = 0.0
    mended: float = 0.0
    back: float = 0.0
    since: int = 0

    def name(self, kind: str, policy: str) -> str:
        return f"{kind}-{policy}-{self.fault}"

    def begin(self) -> None:
        """All jobs at work, the ones alone and rank 0 of the gangs on the victim."""
        for kind, ranks in KINDS.items():
            for policy in POLICIES:
                may = list(self.lab.hosts)
                with self.lab.only(*may[:ranks]):
                    name = self.name(kind, policy)
                    nodes = may if policy == "restart" else may[:ranks]
                    self.runs[kind, policy] = self.lab.begin(name, policy, nodes, ranks)

    def strike(self, seconds: float) -> None:
        """The fault: as long as it takes until all that follows from a loss has happened, or so
        many seconds where no loss is to be expected."""
        bed, host = self.lab.bed, self.lab.hosts[VICTIM]
        strike, mend = (FAULTS | TROUBLES)[self.fault]
        self.since, self.began = self.lab.newest(), time.time()
        strike(bed, host)
        try:
            if self.fault in FAULTS:
                self.lab.follow(self._followed)
            time.sleep(seconds)
        finally:
            self.mended = time.time()
            mend(bed, host)
        self.lab.follow(lambda: self.lab.state(VICTIM) == "up")
        self.back = time.time()

    def _followed(self) -> bool:
        """What is given up has failed, what is begun again is at work."""
        return all(
            self._state(kind, "lost") == "failed"
            and self._state(kind, "restart") == "running"
            and self._attempt(kind, "restart") == 2
            for kind in KINDS
        )

    def _state(self, kind: str, policy: OnNodeLoss) -> str:
        return self.lab.view(self.runs[kind, policy]).summary.state

    def _attempt(self, kind: str, policy: OnNodeLoss) -> int:
        return max(one.attempt for one in self.lab.attempts(self.runs[kind, policy]))

    def settle(self) -> None:
        """No attempt but the last of a job is unfinished; what ran on a machine that was booted
        again is over."""

        def is_so() -> bool:
            booted = self.fault in ("killed", "rebooted")
            if booted and any(self._state(kind, "wait") == "running" for kind in KINDS):
                return False
            for (kind, policy), run in self.runs.items():
                last = self._attempt(kind, policy)
                older = [one for one in self.lab.attempts(run) if one.attempt < last]
                if any(one.state != "done" for one in older):
                    return False
            return True

        self.lab.follow(is_so)

    def row(self) -> list[str]:
        """Of the table, but for what is looked for at the end."""
        told = self.lab.events(self.since, VICTIM)
        times = [told.get(kind) for kind in ("node.down", "node.lost")]
        cells = ["-" if at is None else f"{at - self.began:.1f}" for at in times]
        gone = not {"node.up", "node.lost"}.isdisjoint(told)
        cells.append(f"{self.back - self.mended:.1f}" if gone else "-")
        return [self.fault, *cells, *(self._outcome(*key) for key in self.runs)]

    def _outcome(self, kind: str, policy: OnNodeLoss) -> str:
        summary = self.lab.view(self.runs[kind, policy]).summary
        attempt = self._attempt(kind, policy)
        again = f", attempt {attempt}" if attempt > 1 else ""
        return f"{summary.state}{': ' + summary.reason if summary.reason else ''}{again}"

    def end(self) -> list[str]:
        """Cells: doubled runs, leftovers. Says what they are."""
        woken = self.mended if self.fault == "frozen" else float("inf")
        self.lab.stop(*self.runs.values())
        names = [self.name(*key) for key in self.runs]
        doubled = [one for name in names for one in self.lab.doubled(name, woken=woken)]
        left = self.lab.left(VICTIM)
        for line in doubled + left:
            print(f"  {self.fault}: {line}")
        return [str(len(doubled)), str(len(left))]


def matrix(faults: Iterable[str], lease: float, seconds: float) -> list[list[str]]:
    """Rows of the table."""
    rows = [[*HEAD, "doubled", "left"]]
    shapes = [Shape(disk=DISK, memory=MEMORY)] + [Shape(disk=DISK)] * 2
    with (
        tempfile.TemporaryDirectory(prefix="moorage-bench-") as place,
        lab_of(shapes, Path(place), lease) as lab,
    ):
        for fault in faults:
            strike = Strike(lab, fault)
            strike.begin()
            strike.strike(seconds)
            strike.settle()
            row = strike.row()
            rows.append([*row, *strike.end()])
            print("  ".join(rows[-1]), flush=True)
    return rows


def main() -> None:
    """All faults, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*FAULTS, *TROUBLES]
    parser.add_argument("fault", nargs="*", help=f"of {', '.join(names)}")
    parser.add_argument("--lease", type=float, default=LEASE, help="seconds")
    parser.add_argument("--seconds", type=float, default=LEASE, help="that a fault goes on for")
    options = parser.parse_args()
    for fault in options.fault:
        if fault not in names:
            parser.error(f"no such fault: {fault}")
    rows = matrix(options.fault or names, options.lease, options.seconds)
    show(f"faults, lease {options.lease:g} s; times in seconds", rows)


if __name__ == "__main__":
    main()
