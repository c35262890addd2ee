"""Why does a job wait, and could it ever run?"""

from __future__ import annotations

from moorage.core.cluster import Cluster
from moorage.core.job import Job
from moorage.errors import Problem
from moorage.specs.task import Task


def explain(cluster: Cluster, job: Job, now: float) -> str:
    """One line for people; empty for a job that does not wait."""
    raise NotImplementedError


def waits_for(cluster: Cluster, task: Task) -> str:
    """Why a run submitted now would not start at once; empty if it would."""
    raise NotImplementedError


def fits_ever(cluster: Cluster, task: Task) -> list[Problem]:
    """Why no known node could ever run this; empty where one could, or none is known yet."""
    raise NotImplementedError
