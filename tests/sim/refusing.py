"""What is broken on purpose where nodes refuse jobs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from moorage.core import boot
from moorage.core.reactor import ends
from moorage.core.shape import shapes_of
from sim.mutants import Doubt
from sim.schedule import Schedule

Patch = pytest.MonkeyPatch


def refusals_fail_jobs(patch: Patch) -> None:
    patch.setattr(ends, "any_left", lambda *_: False)


def refusals_do_not_matter(patch: Patch) -> None:
    """Back to the queue, and to the same node."""
    patch.setattr(ends, "shapes_beside", lambda _, run, *__: shapes_of(run.task))


def refusals_are_forgotten_at_the_start(patch: Patch) -> None:
    patch.setattr(boot, "refused", lambda *_: {})


def jobs_that_all_refused_stay_refused(patch: Patch) -> None:
    patch.setattr(ends, "_forgotten", lambda *_: [])


def _lacking(schedule: Schedule) -> None:
    """Little happens but that nodes lack something for a while, and servers begin anew."""
    schedule.faults = {"lack": 6.0, "full": 1.0, "crash": 1.0, "break": 1.0}
    schedule.ranks, schedule.pace = schedule.ranks[:3], 4.0


REFUSALS: Mapping[str, Doubt] = MappingProxyType(
    {
        "refusals fail jobs": Doubt(refusals_fail_jobs, _lacking),
        "refusals do not matter": Doubt(refusals_do_not_matter, _lacking),
        "refusals are forgotten at the start": Doubt(
            refusals_are_forgotten_at_the_start, _lacking
        ),
        "jobs that all refused stay refused": Doubt(jobs_that_all_refused_stay_refused, _lacking),
    }
)
