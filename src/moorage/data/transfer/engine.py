"""Carries out what a comparison found."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from msgspec import Struct

from moorage.data.transfer.compare import Options, Plan, compare
from moorage.data.transfer.counting import Counter, Tell
from moorage.data.transfer.etags import bare
from moorage.data.transfer.listing import listing
from moorage.data.transfer.places import Local, Place, Remote
from moorage.data.transfer.pool import Pool
from moorage.errors import Problem, Unavailable

_FEW = 5


class Report(Struct):
    """What was moved."""

    files: int = 0
    bytes: int = 0
    unchanged: int = 0
    deleted: int = 0
    links: int = 0
    """Symbolic links that were left out."""
    others: int = 0
    seconds: float = 0.0
    problems: list[Problem] = []
    """What could not be moved; everything else was."""

    def require_all(self) -> None:
        """Unavailable where something could not be moved, with the first of them."""
        if self.problems:
            lines = [str(problem) for problem in self.problems[:_FEW]]
            more = len(self.problems) - _FEW
            lines += [f"and {more} more"] if more > 0 else []
            raise Unavailable("\n".join(lines))


def transfer(
    source: Place, target: Place, options: Options | None = None, tell: Tell | None = None
) -> Report:
    """Make the target have what the source has. MoorageError where a place cannot be worked
    with; what concerns single files is in the report. Call it again after an interruption."""
    return carry_out(compare(source, target, options), tell)


def carry_out(plan: Plan, tell: Tell | None = None) -> Report:
    """Move what the plan says, see whether it arrived, then delete. Errors as `transfer`."""
    began = time.monotonic()
    counter = Counter(len(plan.moves), plan.size, tell)
    report = Report(unchanged=plan.unchanged, links=plan.links, others=plan.others)
    report.problems += plan.problems
    pools: list[Pool] = []

    def pool(threads: int) -> Pool:
        pools.append(Pool(threads))
        return pools[-1]

    if plan.moves:
        try:
            _move(plan, pool, counter)
        finally:
            for one in pools:
                report.problems += one.problems
            report.files, report.bytes = counter.files, counter.bytes
    if plan.deletions and not report.problems:
        one = pool(1)  # Ctrl-C ends no request of the main thread's
        one.run([partial(_delete, plan, report)])
        report.problems += one.problems
    report.seconds = time.monotonic() - began
    return report


def _move(plan: Plan, pool: Callable[[int], Pool], counter: Counter) -> None:
    source, target, threads = plan.source, plan.target, plan.options.threads
    if isinstance(target, Local):
        if isinstance(source, Local):
            raise Unavailable("both are on this machine; use cp or rsync")
        from moorage.data.transfer import download  # each way loads its own only

        one = pool(min(threads or download.THREADS, max(1, plan.size // 2**20 + len(plan.moves))))
        download.Download(source, target.path, one, counter).run(plan.moves)
        return
    if isinstance(source, Local):
        from moorage.data.transfer import upload

        sending = upload.Upload(source, target, pool, counter)
        sending.run(plan.moves, threads or upload.THREADS)
        sent = sending.sent
    else:
        from moorage.data.transfer import between

        copying = between.Between(source, target, pool, counter)
        copying.run(plan.moves, threads or between.THREADS)
        sent = copying.sent
    one = pool(1)
    one.run([partial(_verify, plan, sent, one)])


def _verify(plan: Plan, sent: Mapping[str, tuple[int, str]], pool: Pool) -> None:
    """Ask the store what it has now of what it said it took."""
    there = listing(plan.target, missing_ok=True).entries
    for name, (size, etag) in sent.items():
        found = there.get(name)
        if not size and not name:
            continue  # with others below it, a listing does not show it
        place = f"{plan.target.shown}/{name}" if name else plan.target.shown
        if found is None or found.size != size:
            fix = "rename it: this store keeps no \\ in names" if "\\" in place else "try again"
            pool.problem(place, "the store took it, but does not have it", fix)
        elif etag and found.etag and bare(etag) != bare(found.etag):
            pool.problem(place, "somebody else wrote it meanwhile", "try again")


def _delete(plan: Plan, report: Report) -> None:
    target = plan.target
    if isinstance(target, Remote):
        target.bucket.delete([target.at(name) for name in plan.deletions])
        report.deleted = len(plan.deletions)
        return
    for name in plan.deletions:
        path = target.at(name)
        with suppress(FileNotFoundError):
            os.unlink(path)
        parent = os.path.dirname(name)
        while parent:  # what is empty now
            try:
                os.rmdir(target.at(parent))
            except OSError:
                break
            parent = os.path.dirname(parent)
    report.deleted = len(plan.deletions)
