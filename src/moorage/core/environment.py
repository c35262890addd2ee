"""Variables of a job that say what runs where."""

from __future__ import annotations

import json
from types import MappingProxyType

from moorage.core.job import Job
from moorage.core.node import Reservation
from moorage.core.run import Run
from moorage.core.team import ALONE, Team
from moorage.specs.gang import group_of, resources_of


def environment(run: Run, job: Job, claim: Reservation, team: Team) -> dict[str, str]:
    """Those of a dialect only where the task wants them."""
    own = _ranks(claim, team) if job.gang or claim.gpus else _ALONE.copy()
    own |= {
        "MOORAGE_RUN_ID": str(run.id),
        "MOORAGE_RUN_NAME": run.name,
        "MOORAGE_JOB_ID": str(job.id),
        "MOORAGE_JOB_INDEX": str(job.index),
        "MOORAGE_ATTEMPT": str(job.state.attempt),
        "MOORAGE_USER": run.user,
        "MOORAGE_CPUS": f"{claim.millicpus / 1000:g}",
    }
    task = run.task
    if task.groups and (group := group_of(task, team.rank)) is not None:
        own["MOORAGE_GROUP"] = group.name
    memory = (resources_of(task, team.rank) if task.groups else task.resources).memory
    if memory is not None and memory.max is not None:
        own["MOORAGE_MEMORY"] = str(int(memory.max))
    if "dstack" in run.task.compat:
        own |= _dstack(run, job, own)
    if "skypilot" in run.task.compat:
        own |= _skypilot(run, own)
    return own


def _ranks(claim: Reservation, team: Team) -> dict[str, str]:
    return {
        "MOORAGE_RANK": str(team.rank),
        "MOORAGE_NODES": str(team.nodes),
        "MOORAGE_MASTER_IP": team.addresses[0],
        "MOORAGE_NODE_IPS": "\n".join(team.addresses),
        "MOORAGE_GPUS_PER_NODE": str(len(claim.gpus)),
        "MOORAGE_GPUS": str(sum(team.gpus) if team.nodes > 1 else len(claim.gpus)),
    }


_ALONE = MappingProxyType(_ranks(Reservation(0, 0, 0, ()), ALONE))
"""Most jobs have one rank and no GPU: each of them asks."""


def _dstack(run: Run, job: Job, own: dict[str, str]) -> dict[str, str]:
    return {
        "DSTACK_RUN_NAME": run.name,
        "DSTACK_RUN_ID": str(run.id),
        "DSTACK_JOB_ID": str(job.id),
        "DSTACK_NODES_NUM": own["MOORAGE_NODES"],
        "DSTACK_NODE_RANK": own["MOORAGE_RANK"],
        "DSTACK_GPUS_NUM": own["MOORAGE_GPUS"],
        "DSTACK_GPUS_PER_NODE": own["MOORAGE_GPUS_PER_NODE"],
        "DSTACK_MASTER_NODE_IP": own["MOORAGE_MASTER_IP"],
        "DSTACK_NODES_IPS": own["MOORAGE_NODE_IPS"],
    }


def _skypilot(run: Run, own: dict[str, str]) -> dict[str, str]:
    cluster = {"cluster_name": run.name, "cloud": "moorage", "region": None, "zone": None}
    ranks = {
        "NODE_IPS": own["MOORAGE_NODE_IPS"],
        "NODE_RANK": own["MOORAGE_RANK"],
        "NUM_GPUS_PER_NODE": own["MOORAGE_GPUS_PER_NODE"],
    }
    return {
        **{f"SKYPILOT_{name}": value for name, value in ranks.items()},
        # The commands before `run` see the same under names of their own.
        **{f"SKYPILOT_SETUP_{name}": value for name, value in ranks.items()},
        "SKYPILOT_NUM_NODES": own["MOORAGE_NODES"],
        "SKYPILOT_TASK_ID": f"moorage-{own['MOORAGE_RUN_ID']}-{run.name}",
        "SKYPILOT_INTERNAL_JOB_ID": own["MOORAGE_JOB_ID"],
        "SKYPILOT_USER": own["MOORAGE_USER"],
        "SKYPILOT_CLUSTER_INFO": json.dumps(cluster),
    }
