"""Nodes for jobs with several ranks: all of them in one decision, in one fleet, a node a rank.

The first such job in the queue for which there are enough nodes, if they were free, has nodes kept
for it until they are: else smaller jobs would take every place that falls free, for ever. So has
one that wants a node alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from moorage.core.node import Node, Reservation
from moorage.core.queue import Queue
from moorage.core.shape import Shape
from moorage.ids import JobId, NodeId

Options = dict[Shape, list[Node]]


class Order(Protocol):
    """How good a node is for a shape: the best first."""

    def __call__(self, node: Node, shape: Shape) -> Any: ...


@dataclass(slots=True)
class Hold:
    """What is kept for a job that waits: its nodes, by rank."""

    job: JobId
    gang: tuple[Shape, ...]
    nodes: tuple[NodeId, ...]
    _taken: list[Node] = field(default_factory=list)

    def take(self, nodes: Mapping[NodeId, Node]) -> None:
        """Reserve, until `give_back`, what each rank needs; where that is not free yet, all that
        is. `nodes`: those with any room."""
        for number, shape in zip(self.nodes, self.gang, strict=True):
            if (node := nodes.get(number)) is None:
                continue
            if node.fits(shape):
                node.reserve(self.job, shape)
            else:
                node.restore(self.job, _rest(node))
            self._taken.append(node)

    def give_back(self) -> None:
        """The pass is over."""
        for node in self._taken:
            node.release(self.job)
        self._taken.clear()


def _rest(node: Node) -> Reservation:
    """All that is free on it."""
    gpus = tuple(gpu.index for gpu in node.free_gpus)
    memory, disk = max(0, node.free_memory), max(0, node.free_disk)
    return Reservation(max(0, node.free_millicpus), memory, disk, gpus)


def choose(nodes: Iterable[Node], gang: Sequence[Shape]) -> list[Node] | None:
    """A node with room for each rank, all of one fleet; None where there are too few."""
    return _of_one_fleet(nodes, gang, Node.fits, _tightness)


def room_for(nodes: Iterable[Node], gang: Sequence[Shape]) -> bool:
    """Could all ranks run at once, if these nodes were free?"""
    if len(gang) == 1:  # asked for each job that is submitted
        return any(node.fits_empty(gang[0]) for node in nodes)
    return _of_one_fleet(nodes, gang, Node.fits_empty, _soonest) is not None


def most_ranks(
    nodes: Iterable[Node], gang: Sequence[Shape], fits: Callable[[Node, Shape], bool]
) -> int:
    """On how many nodes of one fleet a rank fits, at most."""
    kinds = set(gang)
    able = Counter(node.fleet for node in nodes if any(fits(node, shape) for shape in kinds))
    return max(able.values(), default=0)


def reserve(queue: Queue, nodes: Mapping[NodeId, Node], kept: Hold | None) -> Hold | None:
    """What to keep, and for whom; as before (`kept`) as long as that may lead anywhere."""
    for _, number, group in sorted(queue.starving(), key=_place):
        gang = group.gang or (group.shape,)
        same = kept is not None and (kept.job, kept.gang) == (number, gang)
        if kept is not None and same and _useful(kept, nodes):
            return kept
        able = [node for node in nodes.values() if node.open]
        found = _of_one_fleet(able, gang, Node.fits_sound, _soonest)
        if found is not None and not group.gang:  # any fleet will do
            fitting = (node for node in able if node.fits_sound(group.shape))
            found = [min(fitting, key=partial(_soonest, shape=group.shape))]
        if found is not None:
            return Hold(number, gang, tuple(node.id for node in found))
    return None


def _place(entry: tuple[int, JobId, object]) -> tuple[int, JobId]:
    return entry[0], entry[1]


def _useful(hold: Hold, nodes: Mapping[NodeId, Node]) -> bool:
    found = [nodes.get(number) for number in hold.nodes]
    return all(
        node is not None and node.open and node.fits_sound(shape)
        for node, shape in zip(found, hold.gang, strict=True)
    )


def _tightness(node: Node, shape: Shape) -> Any:
    """As for single jobs: the node that is left with least, so that large gaps stay large."""
    has = node.resources
    return (
        len(has.gpus) - len(node.used_gpus),
        node.free_millicpus - shape.millicpus,
        node.free_memory - shape.memory,
        node.id,
    )


def _soonest(node: Node, shape: Shape) -> Any:
    """Where there is room, or where the fewest have to end."""
    return (not node.fits(shape), len(node.claims), node.used_millicpus, node.id)


def _of_one_fleet(
    nodes: Iterable[Node],
    gang: Sequence[Shape],
    fits: Callable[[Node, Shape], bool],
    order: Order,
) -> list[Node] | None:
    kinds = list(dict.fromkeys(gang))
    fleets: dict[str, Options] = {}
    for node in nodes:
        for shape in kinds:
            if fits(node, shape):
                options = fleets.setdefault(node.fleet, {kind: [] for kind in kinds})
                options[shape].append(node)
    # A small fleet first, so that large gaps stay large.
    for _, options in sorted(fleets.items(), key=lambda item: (_size(item[1]), item[0])):
        for shape, able in options.items():
            able.sort(key=partial(order, shape=shape))
        if (found := _match(options, gang)) is not None:
            return found
    return None


def _size(options: Options) -> int:
    return sum(map(len, options.values()))


def _match(options: Options, gang: Sequence[Shape]) -> list[Node] | None:
    """A node of its own for each rank: those first for which there are fewest."""
    if any(len(able) < gang.count(shape) for shape, able in options.items()):
        return None
    if len(options) == 1:
        return sorted(options[gang[0]][: len(gang)], key=lambda node: node.id)
    at: dict[int, Node] = {}
    holders: dict[NodeId, int] = {}
    for rank in sorted(range(len(gang)), key=lambda rank: len(options[gang[rank]])):
        if not _seat(rank, [options[shape] for shape in gang], at, holders):
            return None
    return [at[rank] for rank in range(len(gang))]


def _seat(
    rank: int, options: Sequence[list[Node]], at: dict[int, Node], holders: dict[NodeId, int]
) -> bool:
    """Find a node for one more rank, and let others move where they have to: the shortest way of
    moves that ends at a free node, if there is one."""
    wanted_by: dict[NodeId, int] = {}
    waiting = [rank]
    for one in waiting:  # grows meanwhile
        for node in options[one]:
            if node.id in wanted_by:
                continue
            wanted_by[node.id] = one
            if node.id in holders:
                waiting.append(holders[node.id])
                continue
            free: Node | None = node
            while free is not None:
                mover = wanted_by[free.id]
                holders[free.id], left = mover, at.get(mover)
                at[mover], free = free, left
            return True
    return False
