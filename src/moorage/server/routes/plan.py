"""What a submit would do."""

from __future__ import annotations

from collections.abc import Mapping

from moorage.core.explain import fits_ever, waits_for
from moorage.core.launch import check_references, container_of, limits_of
from moorage.core.named import anyway, candidates
from moorage.core.node import Node
from moorage.core.reactor.submit import name_in_use
from moorage.core.shape import shapes_of, where_of
from moorage.errors import InvalidInput
from moorage.ids import NodeId
from moorage.protocol.agent import Launch, ProbeResult
from moorage.protocol.api import PlanNode, PlanReply, PlanRequest, RunPlan, RunRequest
from moorage.server.checks import missing, problems_of
from moorage.server.services import Services
from moorage.server.table import AnyRoute, Call, NoParams, Route
from moorage.specs.checks import check_task
from moorage.specs.task import Task

PATIENCE = 5.0
"""Seconds that a node has to answer a probe."""


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
    never = [str(problem) for problem in fits_ever(cluster, task)]
    answers = await services.engine.links.probe(_launch(task, user), PATIENCE)
    able = candidates(cluster, anyway(where_of(task)))
    nodes = [_node(node, task, answers) for node in able if node.up]
    warnings = []
    if not nodes and not never:
        warnings.append("no node is connected: the run would wait for one")
    elif not never and not any(node.fits for node in nodes):
        problems += sorted({text for node in nodes for text in node.problems})
    return RunPlan(
        name=task.name,
        nodes=nodes,
        problems=problems + never,
        warnings=warnings,
        missing_blobs=absent,
        waits_for=waits_for(cluster, task) if not (problems or never) else "",
    )


def _node(node: Node, task: Task, answers: Mapping[NodeId, ProbeResult]) -> PlanNode:
    shape = shapes_of(task)[0]
    answer = answers.get(node.id)
    notes = ["it did not answer in time"] if answer is None else list(answer.notes)
    if node.isolation.ssh is not None and len(shapes_of(task)) > 1:
        notes.append(node.isolation.ssh)
    problems = [] if answer is None else answer.problems
    large_enough = node.fits_empty(shape)
    return PlanNode(
        node=node.name,
        fits=large_enough and not problems,
        free_now=node.open and node.fits(shape),
        problems=problems,
        notes=notes,
    )


def _launch(task: Task, user: str) -> Launch:
    """The launch as a node would get it, as far as it is known before the run exists."""
    return Launch(
        run=0,
        run_name=task.name or "plan",
        user=user,
        job=0,
        index=0,
        attempt=1,
        commands=task.commands,
        container=container_of(task),
        shell=task.shell,
        python=task.python,
        working_dir=task.working_dir,
        env=task.env,
        compat=list(task.compat),
        mounts=task.mounts,
        limits=limits_of(task.resources),
        max_duration=task.max_duration,
        stop_duration=task.stop_duration,
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
