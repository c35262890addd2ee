"""Lines on full nodes: short jobs sent ahead, so that a place that falls free is taken at once and
not a round trip later; and taken back where they would be better off elsewhere.

A line never lets a job past another that waits: a job joins one only while everything before it in
the queue stands in a line too, or could not run on that node at all. What has joined may be up to
a line ahead of a later job of higher priority only until it was taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heapreplace

from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Wake
from moorage.core.job import Job, Prefilled
from moorage.core.node import Node
from moorage.core.place import Places
from moorage.core.reactor.turns import admit, ask_back, join_line
from moorage.core.shape import Shape
from moorage.ids import NodeId

SHORTEST = 4
LONGEST = 64
"""A line is as long as there are jobs of its shape on the node, within these bounds."""
OVERTAKING = 256
"""No job joins a line where one that is so much older stands in another line."""


def admit_first(cluster: Cluster, places: Places, now: float) -> list[Effect]:
    """Room on nodes with lines goes to those in line that come before all that is queued."""
    if not cluster.lines or not places.any_room:
        return []
    groups = cluster.queue.all_groups()
    return _admit(cluster, places, (groups[0][0], groups[0][1]) if groups else None, now)


def admit_rest(cluster: Cluster, places: Places, now: float) -> list[Effect]:
    """What room is left goes to whoever is in line there."""
    if not cluster.lines or not places.any_room:
        return []
    return _admit(cluster, places, None, now)


def _admit(
    cluster: Cluster, places: Places, before: tuple[int, int] | None, now: float
) -> list[Effect]:
    effects: list[Effect] = []
    for node in places.roomy():
        for shape in list(node.lines):
            for job in _waiting(cluster, node, shape):
                if not node.fits(shape) or (before is not None and job.order > before):
                    break
                effects += admit(cluster, job, now)
    return effects


def _waiting(cluster: Cluster, node: Node, shape: Shape) -> list[Job]:
    """Who is in this line and stays there."""
    jobs = [cluster.jobs[number] for number in node.lines.get(shape, ())]
    return [job for job in jobs if not job.stopping and not _retracting(job)]


def _retracting(job: Job) -> bool:
    return isinstance(job.state, Prefilled) and job.state.retracting


def yield_to_priority(cluster: Cluster) -> list[Effect]:
    """Take back those that stand where a job of higher priority, which waits, could run."""
    if not cluster.lines:
        return []
    lowest = min(job.priority for job in _all(cluster))
    back: list[Job] = []
    for order, _, group in sorted(cluster.queue.groups()):
        shape = group.shape
        if -order <= lowest:
            break
        for node in _with_lines(cluster):
            if node.up and node.fits_empty(shape):
                jobs = (job for kind in node.lines for job in _waiting(cluster, node, kind))
                back += [job for job in jobs if job.priority < -order]
    return ask_back(back)


def yield_to_gang(cluster: Cluster) -> list[Effect]:
    """Take back those that stand where nodes are kept for a job that comes before them."""
    if cluster.hold is None or not cluster.lines:
        return []
    first = cluster.jobs[cluster.hold.job].order
    nodes = [cluster.nodes[number] for number in cluster.hold.nodes]
    lines = (_waiting(cluster, node, kind) for node in nodes for kind in node.lines)
    return ask_back([job for line in lines for job in line if job.order > first])


def _all(cluster: Cluster) -> Iterator[Job]:
    for node in _with_lines(cluster):
        for line in node.lines.values():
            yield from (cluster.jobs[number] for number in line)


def _with_lines(cluster: Cluster) -> Iterable[Node]:
    numbers = set().union(*cluster.lines.values())
    return [cluster.nodes[number] for number in sorted(numbers)]


def fill(cluster: Cluster, now: float, limit: int) -> list[Effect]:
    """Let queued jobs join lines, in the order of the queue."""
    inviting = _inviting(cluster)
    groups = cluster.queue.groups() if inviting else []
    hosts: dict[Shape, list[tuple[int, NodeId]]] = {}
    effects: list[Effect] = []
    while groups and limit:
        order, number, group = groups[0]
        shape = group.shape
        if shape not in hosts:
            hosts[shape] = _open(cluster, shape)
        node = _shortest(cluster, hosts[shape], inviting, cluster.jobs[number])
        if node is None:
            inviting -= {n for n in inviting if cluster.nodes[n].fits_empty(shape)}
            if not inviting:
                break
            heappop(groups)
            continue
        limit -= 1
        effects += join_line(cluster, cluster.jobs[number], node.id, now)
        following = cluster.queue.head(group)
        if following is None:
            heappop(groups)
        else:
            heapreplace(groups, (order, following, group))
    return [*effects, Wake()] if groups and not limit else effects


def _inviting(cluster: Cluster) -> set[NodeId]:
    """Nodes with a line that somebody might join; it shrinks as jobs stay in the queue that could
    run there. Few of all nodes, and only these need a look for each shape that waits. None is
    among them that is kept for a job."""
    kept = cluster.hold.nodes if cluster.hold else ()
    return {
        number
        for shape, numbers in cluster.hosts.items()
        for number in numbers
        if cluster.nodes[number].open
        and shape in cluster.nodes[number].quick
        and number not in kept
    }


def _open(cluster: Cluster, shape: Shape) -> list[tuple[int, NodeId]]:
    """Nodes whose line of this shape is at most half full, the shortest first: refilled one by one
    they would cost a pass and a message for each job that ends."""
    found = []
    for number in cluster.hosts.get(shape, ()):
        node = cluster.nodes[number]
        there = len(node.lines.get(shape, ()))
        inviting = node.open and shape in node.quick and node.admitted(shape.where)
        if inviting and there <= _room(cluster, node, shape) // 2:
            found.append((there, number))
    heapify(found)
    return found


def _room(cluster: Cluster, node: Node, shape: Shape) -> int:
    return min(LONGEST, max(SHORTEST, cluster.hosts[shape][node.id]))


def _shortest(
    cluster: Cluster, open_lines: list[tuple[int, NodeId]], inviting: set[NodeId], job: Job
) -> Node | None:
    """The node for one more; its line counts as one longer then."""
    while open_lines:
        there, number = open_lines[0]
        node = cluster.nodes[number]
        room = there < _room(cluster, node, job.shape)
        if room and number in inviting and not _overtakes(node, job):
            heapreplace(open_lines, (there + 1, number))
            return node
        heappop(open_lines)
    return None


def _overtakes(node: Node, job: Job) -> bool:
    oldest = (next(iter(line)) for shape, line in node.lines.items() if shape != job.shape)
    return any(number + OVERTAKING < job.id for number in oldest)


def balance(cluster: Cluster, places: Places) -> list[Effect]:
    """Take back as many as other nodes have room for now, from the ends of the longest lines."""
    if not cluster.lines or not places.any_room:
        return []
    back: list[Job] = []
    for shape, numbers in cluster.lines.items():
        room = places.count(shape, LONGEST)
        if not room:
            continue
        nodes = [cluster.nodes[number] for number in numbers]
        room -= sum(_retracting(cluster.jobs[job]) for node in nodes for job in node.lines[shape])
        lines = {node.id: _waiting(cluster, node, shape) for node in nodes if node.up}
        while room > 0 and (longest := max(lines.values(), key=len, default=[])):
            back.append(longest.pop())
            room -= 1
    return ask_back(back)
