"""What a submit would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moorage.core.explain import fits_ever, waits_for
from moorage.core.launch import check_references, sketch
from moorage.core.named import by_name, kind_of, some
from moorage.core.node import Node
from moorage.core.reactor.submit import name_in_use
from moorage.core.shape import shapes_of, where_of
from moorage.errors import InvalidInput
from moorage.ids import NodeId
from moorage.protocol.agent import ProbeResult
from moorage.protocol.api import RunRequest
from moorage.protocol.plans import PlanNode, PlanReply, PlanRequest, RunPlan
from moorage.server.checks import missing, problems_of
from moorage.server.services import Services
from moorage.server.table import AnyRoute, Call, NoParams, Route
from moorage.specs.checks import check_task
from moorage.specs.gang import ranks
from moorage.specs.places import field_of
from moorage.specs.task import Task

PATIENCE = 1.0
"""Seconds in which nodes have to answer a probe. One that was just cut off still counts as
connected, and nobody should wait for it."""


async def plan(call: Call[NoParams, PlanRequest]) -> PlanReply:
    """Changes nothing."""
    return PlanReply([await _plan(call.services, run, call.user) for run in call.body.runs])


async def _plan(services: Services, run: RunRequest, user: str) -> RunPlan:
    cluster = services.engine.cluster
    task = run.spec
    problems = [str(problem) for problem in (*problems_of(task), *check_references(task))]
    if check_task(task):  # a number that nothing can be asked for may be among them
        return RunPlan(task.name, [], problems)
    try:
        absent = sorted(await missing(services.blobs, [task]))
    except InvalidInput as error:
        problems += [str(problem) for problem in error.problems]
        absent = []
    if task.name is not None and task.name in cluster.names:
        problems.append(str(name_in_use(task.name)))
    report = await services.mounts.examine(task)
    problems += [str(problem) for problem in report.problems]
    never = [str(problem) for problem in fits_ever(cluster, task)]
    able = by_name(cluster, where_of(task))
    up = [node for node in able if node.up]
    asked = [node.id for node in up]
    answers = await services.engine.links.probe(sketch(task, user), PATIENCE, asked)
    nodes = [_node(node, task, answers) for node in up]
    warnings = list(report.warnings)
    if not nodes and not never:
        warnings.append("no node is connected: the run would wait for one")
    elif not never and sum(node.fits for node in nodes) + len(able) - len(up) < ranks(task):
        problems += _told(nodes)
    return RunPlan(
        name=task.name,
        nodes=nodes,
        problems=problems + never,
        warnings=warnings,
        not_asked=_not_asked(able, answers),
        missing_blobs=absent,
        data=report.data,
        waits_for=waits_for(cluster, task) if not (problems or never) else "",
    )


def _not_asked(nodes: Sequence[Node], answers: Mapping[NodeId, ProbeResult]) -> list[str]:
    """Which nodes said nothing about the run, and why."""
    away = [f"{node.name}, which is {node.state}" for node in nodes if not node.up]
    silent = [
        f"{node.name}, which did not answer within {PATIENCE:g} s"
        for node in nodes
        if node.up and node.id not in answers
    ]
    return away + silent


def _told(nodes: Sequence[PlanNode]) -> list[str]:
    """What stands against it on these nodes, each problem once with all that have it."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        for text in node.problems:
            found.setdefault(text, []).append(node.node)
    lines = []
    for text, names in sorted(found.items()):
        field, message = field_of(text)
        at = f"on {some(names)}: {message}"
        lines.append(f"{field}: {at}" if field else at)
    return lines


def _node(node: Node, task: Task, answers: Mapping[NodeId, ProbeResult]) -> PlanNode:
    shape = shapes_of(task)[0]
    answer = answers.get(node.id)
    notes = [] if answer is None else list(answer.notes)
    if node.isolation.ssh is not None and len(shapes_of(task)) > 1:
        notes.append(node.isolation.ssh)
    problems = [] if answer is None else list(answer.problems)
    if node.runtime not in ("any", kind_of(shape.where)):
        problems.append(f"image: fleet {node.fleet}: runtime: {node.runtime}")
    large_enough = node.fits_empty(shape)
    return PlanNode(
        node=node.name,
        fits=large_enough and not problems,
        free_now=node.open and node.fits(shape),
        problems=problems,
        notes=notes,
        closed="draining" if node.draining else node.health,
    )


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="POST",
        path="/v1/plan",
        summary="What a submit would do, and everything that stands against it",
        handler=plan,
        params=NoParams,
        body=PlanRequest,
        reply=PlanReply,
    ),
)
