"""The local files of a bucket mount: `source: ~/data` with a `name:`. They are uploaded by the
client before it submits, straight into the bucket.

One directory lands with its content at the mount's path in the bucket; of a list each directory
and file lands there below its own name. Symbolic links are left out, and counted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moorage.data.objects.bucket import Bucket
from moorage.data.objects.errors import StoreProblem
from moorage.data.transfer.compare import Options, Plan, compare
from moorage.data.transfer.counting import Tell
from moorage.data.transfer.engine import Report, carry_out
from moorage.data.transfer.listing import listing
from moorage.data.transfer.places import Local, Progress, Remote
from moorage.errors import InvalidInput, Problem
from moorage.specs.mounts import Bucket as Mount


@dataclass(slots=True)
class Sending:
    """What a mount will upload."""

    plans: list[Plan] = field(default_factory=list)
    new_bucket: bool = False
    """The bucket is not there yet; it must be made before `send`."""

    @property
    def files(self) -> int:
        """How many will be sent."""
        return sum(len(plan.moves) for plan in self.plans)

    @property
    def size(self) -> int:
        """Bytes that will be sent."""
        return sum(plan.size for plan in self.plans)

    @property
    def unchanged(self) -> int:
        """How many are there already."""
        return sum(plan.unchanged for plan in self.plans)

    @property
    def notes(self) -> list[str]:
        """What is left out though nobody asked for it."""
        return [note for plan in self.plans for note in _left_out(plan)]

    @property
    def problems(self) -> list[Problem]:
        """Files that cannot be sent."""
        return [problem for plan in self.plans for problem in plan.problems]


def places(mount: Mount, base: Path) -> list[tuple[Local, str]]:
    """Each local source with its path in the bucket. InvalidInput where two of a list have the
    same name."""
    found: list[tuple[Local, str]] = []
    taken: set[str] = set()
    for source in mount.sources:
        path = os.path.abspath(base / os.path.expanduser(source))
        name = os.path.basename(path) if mount.listed or os.path.isfile(path) else ""
        if name in taken:
            reason = f"two sources are called {name}, and would lie at the same place"
            raise InvalidInput(Problem(reason, "rename one of them", file=source))
        taken.add(name)
        found.append((Local(path), "/".join(part for part in (mount.path, name) if part)))
    return found


def compare_sources(mount: Mount, base: Path, bucket: Bucket) -> Sending:
    """What the bucket lacks; changes nothing. A bucket that is to be made lacks everything.
    InvalidInput, StoreProblem."""
    sending = Sending()
    if mount.managed:
        try:
            bucket.check()
        except StoreProblem as error:
            if error.reason != "no-bucket":
                raise
            sending.new_bucket = True
    for local, path in places(mount, base):
        target = Remote(bucket, path)
        if sending.new_bucket:
            sending.plans.append(_all(local, target))
        else:
            sending.plans.append(compare(local, target))
    return sending


def _all(local: Local, target: Remote) -> Plan:
    here = listing(local, ignoring=True)
    plan = Plan(local, target, Options(), moves=list(here.entries.values()))
    plan.links, plan.others, plan.problems = here.links, here.others, here.problems
    return plan


def send(sendings: Sequence[Sending], tell: Tell | None = None) -> list[Report]:
    """Upload what was found; one report for each plan. Errors as `carry_out`; Unavailable, with
    their names, where files could not be sent."""
    plans = [plan for sending in sendings for plan in sending.plans]
    files, size = sum(len(plan.moves) for plan in plans), sum(plan.size for plan in plans)
    reports: list[Report] = []
    for plan in plans:
        before = sum(r.files for r in reports), sum(r.bytes for r in reports)

        def told(now: Progress, before: tuple[int, int] = before) -> None:
            assert tell is not None
            tell(Progress(before[0] + now.files, files, before[1] + now.bytes, size))

        reports.append(carry_out(plan, told if tell else None))
        reports[-1].require_all()
    return reports


def _left_out(plan: Plan) -> list[str]:
    notes = []
    if plan.links:
        links = "symbolic link is" if plan.links == 1 else "symbolic links are"
        notes.append(f"{plan.source.shown}: {plan.links} {links} not uploaded into a bucket")
    if plan.others:
        kinds = (
            "socket, pipe or device is" if plan.others == 1 else "sockets, pipes or devices are"
        )
        notes.append(f"{plan.source.shown}: {plan.others} {kinds} left out")
    return notes
