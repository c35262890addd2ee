"""Which node takes a job: the one that is left with least, so that large gaps stay large."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush, heapreplace

from moorage.core.gang import Hold, choose
from moorage.core.node import Node
from moorage.core.queue import Queue
from moorage.core.shape import Shape, Where
from moorage.ids import JobId, NodeId

Candidate = tuple[int, int, int, NodeId, int]
"""How good a node is for a shape, the best first: GPUs, CPUs and memory that would stay free; its
number; and the group of nodes that it stands for (-1: itself alone). GPUs first, so that work
without them keeps off the nodes that have them."""


@dataclass(slots=True)
class _View:
    """The candidates of one shape. `seen`: how many of the used nodes are among them."""

    candidates: list[Candidate]
    seen: int = 0


class Places:
    """The nodes as candidates during one scheduling pass, in which room only ever shrinks.

    Nodes with the same room are looked at once for each shape, until one of them is used: it then
    is a candidate by itself, which every shape sees the next time it is asked for. The best
    candidate stays the best while it is filled with the same shape; where another shape used it
    meanwhile its score is out of date, which can cost a slightly worse choice and never a wrong
    one, because `fits` is asked again.
    """

    def __init__(self, nodes: Iterable[Node], wheres: Collection[Where] = ()) -> None:
        """`wheres`: all that shapes asked for will have; nodes are alike only where each of them
        admits both or neither."""
        self._nodes = {node.id: node for node in nodes if node.open and node.free_millicpus > 0}
        self._wheres = wheres
        self._alike: list[list[Node]] | None = None
        """Unused nodes by their room, in each group the first one last."""
        self._used: list[Node] = []
        self._views: dict[Shape, _View] = {}

    @property
    def any_room(self) -> bool:
        """False when no node could take anything: a pass over a full cluster costs nothing."""
        return bool(self._nodes)

    def roomy(self) -> Iterable[Node]:
        """Nodes that had some room when the pass began."""
        return self._nodes.values()

    def count(self, shape: Shape, limit: int) -> int:
        """How many more jobs of this shape the nodes have room for, up to `limit`. Not for shapes
        with GPUs."""
        found = 0
        for node in self._nodes.values():
            if node.fits(shape):
                found += node.times(shape)
                if found >= limit:
                    return limit
        return found

    def find(self, shape: Shape) -> Node | None:
        """The node for one more job of this shape, which the caller then reserves there."""
        view = self._views.get(shape)
        if view is None:
            view = self._views[shape] = _View(_first(self._groups(), shape))
        if view.seen < len(self._used):
            self._catch_up(view, shape)
        candidates = view.candidates
        while candidates:
            _, _, _, number, alike = candidates[0]
            if alike < 0:
                node = self._nodes[number]
                if node.fits(shape):
                    return node
                heappop(candidates)
            elif group := self._groups()[alike]:
                if group[-1].id == number:
                    return self._use(group, view, shape, alike)
                heapreplace(candidates, _candidate(group[-1], shape, alike))
            else:
                heappop(candidates)
        return None

    def find_all(self, gang: Sequence[Shape]) -> list[Node] | None:
        """Nodes for all ranks of one more job, which the caller then reserves there."""
        found = choose(self._nodes.values(), gang)
        if found is not None:
            self._look_again()
        return found

    def withhold(self, hold: Hold) -> None:
        """Take what is kept for a job out of this pass, as if it were reserved."""
        hold.take(self._nodes)
        self._look_again()

    def _look_again(self) -> None:
        """Room shrank on nodes that nobody `find`s: what was known of them is out of date."""
        self._alike = None
        self._used.clear()
        self._views.clear()

    def _catch_up(self, view: _View, shape: Shape) -> None:
        """See the nodes that others used meanwhile."""
        wanted = shape.millicpus
        for node in self._used[view.seen :]:
            # Most have no CPU left, and this is asked for every shape and node.
            if wanted <= node.resources.cpus * 1000 - node.used_millicpus and node.fits(shape):
                heappush(view.candidates, _candidate(node, shape))
        view.seen = len(self._used)

    def _use(self, group: list[Node], view: _View, shape: Shape, alike: int) -> Node:
        """Take the first node of a group: from now on it is a candidate by itself."""
        node = group.pop()
        self._used.append(node)
        view.seen += 1
        heapreplace(view.candidates, _candidate(node, shape))
        if group:
            heappush(view.candidates, _candidate(group[-1], shape, alike))
        return node

    def _groups(self) -> list[list[Node]]:
        if self._alike is None:
            groups: dict[object, list[Node]] = {}
            # A node that refused a job is like no other: else there are as many as such jobs.
            alone = {name for where in self._wheres for name in where.without}
            wheres = {replace(where, without=frozenset()) for where in self._wheres}
            for node in sorted(self._nodes.values(), key=lambda node: -node.id):
                key = node.room
                if wheres:
                    named = node.name if node.name in alone else ""
                    key = (key, named, *(node.admitted(where) for where in wheres))
                groups.setdefault(key, []).append(node)
            self._alike = list(groups.values())
        return self._alike


def _first(groups: list[list[Node]], shape: Shape) -> list[Candidate]:
    found = [
        _candidate(group[-1], shape, number)
        for number, group in enumerate(groups)
        if group and group[-1].fits(shape)
    ]
    heapify(found)
    return found


def _candidate(node: Node, shape: Shape, alike: int = -1) -> Candidate:
    has = node.resources
    return (
        len(has.gpus) - len(node.used_gpus),
        has.cpus * 1000 - node.used_millicpus - shape.millicpus,
        has.memory - node.used_memory - shape.memory,
        node.id,
        alike,
    )


def placements(
    queue: Queue, places: Places, hold: Hold | None = None
) -> Iterator[tuple[JobId, Sequence[Node]]]:
    """Which job goes where, by priority and then by age: a node for each of its ranks. The caller
    reserves the places and takes the job out of the queue before it asks for the next. What `hold`
    keeps for a job that finds no room is not for those after it."""
    groups = queue.all_groups() if places.any_room else []
    while groups:
        order, number, group = groups[0]
        nodes: Sequence[Node] | None
        if group.gang:
            nodes = places.find_all(group.gang)
        else:
            node = places.find(group.shape)
            nodes = None if node is None else (node,)
        if nodes is None:
            heappop(groups)
            if hold is not None and hold.job == number:
                places.withhold(hold)
            continue
        yield number, nodes
        following = queue.head(group)
        if following is None:
            heappop(groups)
        else:
            heapreplace(groups, (order, following, group))
