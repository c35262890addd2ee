"""Nodes answered whether they would refuse a job as others did."""

from __future__ import annotations

from collections.abc import Collection

from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Wake
from moorage.core.inquiries import learn
from moorage.core.job import Queued
from moorage.ids import NodeId, RunId


def on_answers(
    cluster: Cluster, number: RunId, why: str, refusing: Collection[NodeId], now: float
) -> list[Effect]:
    """`refusing` of the nodes of an `Inquire` would refuse the run's jobs because of `why`; the
    others would not, or said nothing."""
    run = cluster.runs.get(number)
    inquiry = None if run is None else run.inquiries.get(why)
    if run is None or inquiry is None:
        return []
    inquiry.at, inquiry.refusing = now, dict.fromkeys(sorted(refusing), why)
    if not refusing:
        return []
    for job in [cluster.jobs[number] for number in sorted(run.live)]:
        if isinstance(job.state, Queued) and why in job.refusals.values():
            learn(cluster, run, job, now)
    return [Wake()]
