"""Why does a job wait, and could it ever run?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moorage.core.cluster import Cluster
from moorage.core.gang import choose, most_ranks, room_for
from moorage.core.job import Job, Live, Prefilled, Queued, Starting, ranks_of
from moorage.core.named import (
    admitted,
    candidates,
    is_awaited,
    not_open,
    some,
    unknown,
    why_none,
    wrong_kind,
)
from moorage.core.node import Node
from moorage.core.progress import began
from moorage.core.refusals import told
from moorage.core.shape import GpuShape, Shape, shapes_of
from moorage.errors import Problem
from moorage.protocol.agent import Phase
from moorage.protocol.api import Away
from moorage.specs.task import Task
from moorage.units import format_duration, format_size


@dataclass(frozen=True, slots=True)
class Lack:
    """One thing that a node has too little of: `2 CPUs`, `0.5 of 4 free`."""

    field: str
    needs: str
    has: str


def explain(cluster: Cluster, job: Job, now: float, *, brief: bool = False) -> str:
    """What the job waits for, to be read after these words; empty where it is neither queued, nor
    on a node that is away, nor one of whose ranks some have not started. `brief` does not count
    who is ahead, which takes as long as the queue is."""
    state = job.state
    if (found := away(cluster, job)) is not None:
        since = "" if found.since is None else _ago(now - found.since)
        return f"node {found.node}, which is {found.state}{since}"
    if isinstance(state, Starting) and job.gang:
        return f"all of its ranks to start: {_begun(state)}/{len(job.gang)} ranks run"
    if isinstance(state, Prefilled):
        node = cluster.nodes[state.node]
        apart = "" if node.up else ", which is not connected"
        return f"its turn: it is in line on node {node.name}{apart}"
    if not isinstance(state, Queued):
        return ""
    if state.not_before is not None and state.not_before > now:
        return f"its next try, in {format_duration(state.not_before - now)}"
    ahead = None if brief else cluster.queue.ahead(job.order)
    text = _waits(cluster, job.gang or (job.shape,), ahead)
    if not job.refusals:
        return text
    return f"{text}; refused by {told(cluster, {**job.lacking, **job.refusals})}"


def broken_gpus(cluster: Cluster, job: Job) -> str:
    """Which GPUs that it has have failed, and why; empty where all are well."""
    if not isinstance(job.state, Live):
        return ""
    found = []
    for rank in ranks_of(job.state):
        node = cluster.nodes[rank.node]
        if node.failed_gpus.intersection(node.claims[job.id].gpus):
            found += [
                f"GPU {gpu.index} of node {node.name}: {gpu.reason}"
                for gpu in node.condition.gpus
                if gpu.index in node.failed_gpus and gpu.index in node.claims[job.id].gpus
            ]
    return "; ".join(found)


def away(cluster: Cluster, job: Job) -> Away | None:
    """Of the nodes that it is on, the first without a connection."""
    for rank in ranks_of(job.state) if isinstance(job.state, Live) else ():
        node = cluster.nodes[rank.node]
        over = rank.report is not None and rank.report.state == "done"
        if not (node.up or over):
            return Away(node.name, node.state, node.last_seen)
    return None


def doing(job: Job) -> str:
    """How far the phase is that the job is in, where its node says so: `flushing 3 of 9 GB`; while
    it runs, which of its buckets do not answer."""
    if not isinstance(job.state, Live):
        return ""
    phases = (phase for rank in ranks_of(job.state) if rank.report for phase in rank.report.phases)
    return next(filter(None, (_told(phase) for phase in phases if phase.ended is None)), "")


def _told(phase: Phase) -> str:
    if phase.name != "run":
        return phase.detail
    return "; ".join(f"{one.target} {one.message}" for one in phase.mounts if one.stalled)


def _ago(seconds: float) -> str:
    return f", last heard of {format_duration(max(0.0, seconds))} ago"


def _begun(state: Starting) -> int:
    """How many ranks have a process, or had one."""
    reports = [rank.report for rank in ranks_of(state)]
    return sum(report is not None and began(report) is not None for report in reports)


def waits_for(cluster: Cluster, task: Task) -> str:
    """What a run submitted now would wait for; empty if it would start at once. The scheduler has
    passed over all that is queued, so where there is room for this, nobody ahead can use it."""
    if task.schedule is not None:
        return "its schedule"
    shapes = shapes_of(task)
    kept = cluster.hold.nodes if cluster.hold else ()
    free = [node for node in cluster.nodes.values() if node.open and node.id not in kept]
    if choose(free, shapes) is not None:
        return ""
    return _waits(cluster, shapes, cluster.queue.ahead((-task.priority, cluster.next_job)))


def fits_ever(cluster: Cluster, task: Task) -> list[Problem]:
    """Why no known node could ever run this; empty where one could, or none is known yet."""
    shapes = shapes_of(task)
    where = shapes[0].where
    if missing := unknown(cluster, where):
        return missing
    if problems := wrong_kind(cluster, where):
        return problems
    # Asked for each job that is submitted: the first node that fits settles it.
    if room_for(admitted(cluster, where), shapes) or is_awaited(cluster, where):
        return []
    nodes = candidates(cluster, where)
    if not nodes:
        return []
    lacks = _never_any(nodes, shapes)
    if not lacks:
        found = most_ranks(nodes, shapes, Node.fits_empty)
        needs = f"needs {len(shapes)} nodes of one fleet, only {found} can run a part of it"
        return [Problem(f"there are too few nodes for this: {needs}", field="nodes")]
    return [
        Problem(f"no node can ever run this: needs {lack.needs}, {lack.has}", field=lack.field)
        for lack in lacks
    ]


def _never_any(nodes: Sequence[Node], shapes: Sequence[Shape]) -> list[Lack]:
    """What the first rank that no node can run lacks everywhere."""
    for shape in dict.fromkeys(shapes):
        if not any(node.fits_empty(shape) for node in nodes):
            return _never(nodes, shape)
    return []


def _waits(cluster: Cluster, shapes: Sequence[Shape], ahead: int | None) -> str:
    where = shapes[0].where
    known = candidates(cluster, where)
    up = [node for node in known if node.open]
    if not up:
        return why_none(known, where)
    if lacks := _never_any(up, shapes):
        never = "; ".join(f"needs {lack.needs}, {lack.has}" for lack in lacks)
        return f"another node: none that is connected can ever run this: {never}"
    queue = f"{_count(ahead, 'job')} {'is' if ahead == 1 else 'are'} ahead" if ahead else ""
    if len(shapes) > 1:
        text = _waits_for_nodes(known, up, shapes)
        return f"{text}; {queue}" if queue else text
    shape = shapes[0]
    able = [node for node in up if node.fits_empty(shape)]
    node = min(able, key=lambda node: (_shortages(node, shape), node.id))
    if shape.exclusive and node.claims:
        text = f"a node of its own: node {node.name} is used by {_users(cluster, node)}"
        return f"{text}; {queue}" if queue else text
    lacks = _lacks(node, shape)
    if not lacks:
        return "its turn" if ahead is None else f"its turn: {queue or 'it starts next'}"
    needs = " and ".join(lack.needs for lack in lacks)
    has = " and ".join(lack.has for lack in lacks)
    text = f"{needs}: node {node.name} has {has}"
    if node.claims:
        verb = "uses" if len(node.claims) == 1 else "use"
        text += f" ({_users(cluster, node)} {verb} the rest)"
    return f"{text}; {queue}" if queue else text


def _users(cluster: Cluster, node: Node) -> str:
    return some([cluster.runs[cluster.jobs[job].run].name for job in node.claims])


def _waits_for_nodes(known: Sequence[Node], up: Sequence[Node], shapes: Sequence[Shape]) -> str:
    wanted = f"{len(shapes)} nodes of one fleet at once"
    if not room_for(up, shapes):
        able = most_ranks(up, shapes, Node.fits_empty)
        others = not_open([node for node in known if any(map(node.fits_empty, set(shapes)))])
        return f"{wanted}: only {able} of those that take jobs now can run a part of it{others}"
    return f"{wanted}: {most_ranks(up, shapes, Node.fits)} have room now"


def _shortages(node: Node, shape: Shape) -> int:
    """How many lacks there are: asked of every node, so without words for them."""
    return (
        (shape.millicpus > node.free_millicpus)
        + (shape.memory > node.free_memory)
        + (shape.disk > node.free_disk)
        + (shape.gpu is not None and shape.gpu.pick(node.free_gpus) is None)
        + (node.blocks > 0 and node.blocks_for(shape) > node.free_blocks)
        + (shape.exclusive and not node.empty)
    )


def _lacks(node: Node, shape: Shape) -> list[Lack]:
    """What the node has too little of now, though enough in all."""
    has, lacks = node.resources, []
    if shape.millicpus > node.free_millicpus:
        free = f"{_number(node.free_millicpus)} of {has.cpus} free"
        lacks.append(Lack("resources.cpu", _cpus(shape.millicpus), free))
    if shape.memory > node.free_memory:
        free = f"{format_size(max(0, node.free_memory))} of {format_size(has.memory)} free"
        lacks.append(Lack("resources.memory", f"{format_size(shape.memory)} of memory", free))
    if shape.disk > node.free_disk:
        free = f"{format_size(max(0, node.free_disk))} of {format_size(has.disk)} free"
        lacks.append(Lack("resources.disk", f"{format_size(shape.disk)} of disk", free))
    if shape.gpu is not None and shape.gpu.pick(node.free_gpus) is None:
        free = f"{len(node.free_gpus)} of {_count(len(has.gpus), 'GPU')} free"
        if broken := len(node.failed_gpus):
            free += f", {broken} broken"
        lacks.append(Lack("resources.gpu", _gpus(shape.gpu), free))
    if not lacks and node.blocks and node.blocks_for(shape) > node.free_blocks:
        free = f"{max(0, node.free_blocks)} of {node.blocks} free"
        lacks.append(Lack("blocks", _count(node.blocks_for(shape), "block"), free))
    return lacks


def _never(nodes: Sequence[Node], shape: Shape) -> list[Lack]:
    """What none of the nodes has; if each has something, then that none has it all."""
    return list(_exceeded(nodes, shape)) or [
        Lack("resources", "all of its resources on one node", "no node has them together")
    ]


def _told_apart(needed: int, most: int) -> tuple[str, str]:
    """Two sizes for people; with more digits where rounding would make them equal."""
    texts = format_size(needed), format_size(most)
    if texts[0] != texts[1]:
        return texts
    return f"{needed / 2**30:.2f} GB", f"{most / 2**30:.2f} GB"


def _exceeded(nodes: Sequence[Node], shape: Shape) -> Iterator[Lack]:
    has = [node.resources for node in nodes]
    if shape.arch is not None and all(one.arch != shape.arch for one in has):
        archs = " or ".join(sorted({one.arch for one in has}))
        yield Lack("resources.cpu", f"an {shape.arch} CPU", f"all nodes are {archs}")
    if shape.millicpus > 1000 * (most := max(one.cpus for one in has)):
        yield Lack("resources.cpu", _cpus(shape.millicpus), f"the largest node has {most}")
    if shape.memory > (most := max(one.memory for one in has)):
        needs, there = _told_apart(shape.memory, most)
        yield Lack("resources.memory", f"{needs} of memory", f"the largest node has {there}")
    if shape.disk > (most := max(one.disk for one in has)):
        needs, there = _told_apart(shape.disk, most)
        yield Lack("resources.disk", f"{needs} of disk", f"the largest node has {there}")
    if shape.gpu is not None and all(shape.gpu.pick(one.gpus) is None for one in has):
        found = sorted(
            {f"{gpu.name} {format_size(gpu.memory)}" for one in has for gpu in one.gpus}
        )
        there = f"the nodes have {some(found)}" if found else "no node has a GPU"
        yield Lack("resources.gpu", _gpus(shape.gpu), there)


def _gpus(gpu: GpuShape) -> str:
    text = _count(gpu.count, "GPU")
    if gpu.vendor or gpu.names:
        text += f" ({' or '.join(gpu.names) or gpu.vendor})"
    if gpu.memory[0]:
        text += f" with {format_size(gpu.memory[0])} each"
    if gpu.total[0]:
        text += f" with {format_size(gpu.total[0])} in all"
    return text


def _cpus(millicpus: int) -> str:
    return f"{_number(millicpus)} CPU{'' if millicpus == 1000 else 's'}"


def _number(thousandths: int) -> str:
    return f"{max(0, thousandths) / 1000:g}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
