"""Nodes that cannot run a job although it fits: what one of them lacks, others may have.

An attempt that ended before its process because of its node (`Outcome.here`) says nothing about
the job: that is tried elsewhere, and keeps away from the node from then on. A failure of the job's
own makes it forget that, since its next try may come much later. Both follow from the rows of
`attempts`, so that a server that starts knows it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from moorage.core.cluster import Cluster
from moorage.core.gang import room_for
from moorage.core.named import admitted, is_awaited, why_none
from moorage.core.run import Run
from moorage.core.shape import Shape, Where, shapes_of
from moorage.ids import NodeId
from moorage.protocol.agent import Outcome

Refusals = Mapping[NodeId, str]
"""Why, by node."""

_OWN = frozenset({"exited", "signaled", "out-of-memory", "timeout", "phase-failed", "not-flushed"})
_NONE: Refusals = MappingProxyType({})
_SHOWN = 8
_REASONS = 8


def refused(before: Refusals, ranks: Iterable[tuple[NodeId, Outcome | None]]) -> dict[NodeId, str]:
    """What is known after one more attempt; `ranks`: on which nodes, and how they ended."""
    ended = [(node, outcome) for node, outcome in ranks if outcome is not None]
    here = {node: outcome.message for node, outcome in ended if outcome.here}
    if here:
        return {**before, **here}
    if any(outcome.kind in _OWN and outcome.exit_code != 0 for _, outcome in ended):
        return {}
    return dict(before)


def shapes_beside(
    cluster: Cluster, run: Run, refusals: Refusals, lacking: Refusals = _NONE
) -> tuple[Shape, ...]:
    """What each rank asks for, where these nodes will not do; of `lacking` that is hearsay."""
    shapes = shapes_of(run.task)
    if not refusals:
        return shapes
    names = frozenset(cluster.nodes[node].name for node in refusals.keys() | lacking.keys())
    hearsay = len(names) > len(refusals)
    beside = {
        shape: replace(
            shape, where=replace(shape.where or Where(), without=names, hearsay=hearsay)
        )
        for shape in shapes
    }
    return tuple(beside[shape] for shape in shapes)


def any_left(cluster: Cluster, run: Run, refusals: Refusals, lacking: Refusals = _NONE) -> bool:
    """Could it ever run on nodes that have not refused it, connected or not?"""
    shapes = shapes_beside(cluster, run, refusals, lacking)
    where = shapes[0].where
    return room_for(admitted(cluster, where), shapes) or is_awaited(cluster, where)


def others(cluster: Cluster, run: Run, refusals: Refusals, lacking: Refusals) -> str:
    """What follows where there are any left."""
    shapes = shapes_beside(cluster, run, refusals, lacking)
    where = shapes[0].where
    if room_for((node for node in admitted(cluster, where) if node.open), shapes):
        return "trying others"
    able = [node for node in admitted(cluster, where) if node.fits_empty(shapes[0])]
    return f"waiting for {why_none(able, where)}"


def told(cluster: Cluster, refusals: Refusals) -> str:
    """Each node and its reason, in one line."""
    groups: dict[str, list[str]] = {}
    for node, why in refusals.items():
        groups.setdefault(why, []).append(cluster.nodes[node].name)
    lines = [f"{_nodes(sorted(names))}: {why}" for why, names in groups.items()]
    more = [f"{len(lines) - _REASONS} more reasons"] if len(lines) > _REASONS else []
    return "; ".join([*lines[:_REASONS], *more])


def _nodes(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"node{'s' if len(names) > 1 else ''} {shown}{more}"
