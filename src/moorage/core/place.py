"""Which node takes a job: the one that is left with least, so that large gaps stay large."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop

from moorage.core.node import Node
from moorage.core.shape import Shape
from moorage.ids import NodeId

Score = tuple[int, int, int, NodeId]
"""GPUs, CPUs and memory that would stay free: GPUs first, so that work without them keeps off the
nodes that have them."""


class Places:
    """The nodes as candidates during one scheduling pass, in which room only ever shrinks.

    Every shape looks at every node once. The best candidate stays the best while it is filled with
    the same shape; where another shape used it meanwhile its score is out of date, which can cost
    a slightly worse choice and never a wrong one, because `fits` is asked again.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = {node.id: node for node in nodes if node.up and node.free_millicpus > 0}
        self._candidates: dict[Shape, list[Score]] = {}

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
        """The node for one more job of this shape."""
        scores = self._candidates.get(shape)
        if scores is None:
            fitting = (node for node in self._nodes.values() if node.fits(shape))
            scores = [_score(node, shape) for node in fitting]
            heapify(scores)
            self._candidates[shape] = scores
        while scores:
            node = self._nodes[scores[0][3]]
            if node.fits(shape):
                return node
            heappop(scores)
        return None


def _score(node: Node, shape: Shape) -> Score:
    free_gpus = len(node.resources.gpus) - len(node.used_gpus)
    return (
        free_gpus,
        node.free_millicpus - shape.millicpus,
        node.free_memory - shape.memory,
        node.id,
    )
