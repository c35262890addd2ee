"""Choosing nodes for many queued jobs of many shapes: CPU time of the choice alone, of the passes
with all effects built, and of what the scheduler is asked beside it."""

from __future__ import annotations

import random
import time
from itertools import count

from table import show

from moorage.core.cluster import Cluster
from moorage.core.effects import Wake
from moorage.core.place import Places, placements
from moorage.core.reactor import on_hello, on_submit, schedule
from moorage.protocol.agent import Hello, Isolation, NodeResources
from moorage.protocol.api import RunRequest
from moorage.specs.resources import Cpu, Range, Resources
from moorage.specs.task import Task

SIZES = ((1_000, 100), (10_000, 1_000), (100_000, 10_000))
SHAPES = 50
GIB = 1024**3


def cluster_of(jobs: int, nodes: int) -> Cluster:
    """Nodes of 16 CPUs, and jobs of shapes that differ in CPUs and memory, in mixed order."""
    dice = random.Random(1)
    cluster = Cluster()
    for number in range(nodes):
        has = NodeResources(16, "x86", 64 * GIB, 100 * GIB)
        name = f"n{number}"
        on_hello(cluster, Hello(2, "bench", name, "boot", has, Isolation(), [], []), 0.0)
    tasks = [
        Task(
            commands=["true"],
            resources=Resources(
                cpu=Cpu(Range(min=0.5 + shape % 5 * 0.25)), memory=Range(min=(1 + shape) * 2**26)
            ),
        )
        for shape in range(SHAPES)
    ]
    requests = [RunRequest(dice.choice(tasks)) for _ in range(jobs)]
    names = (f"run-{number}" for number in count(1))
    on_submit(cluster, requests, "ann", 0.0, request_id="r", names=names)
    return cluster


def choose(cluster: Cluster) -> int:
    """Nothing but the choice, in the scheduler's order: which node takes which job."""
    queue, placed = cluster.queue, 0
    for number, (node,) in placements(queue, Places(cluster.nodes.values())):
        node.reserve(number, cluster.jobs[number].shape)
        queue.remove(number)
        placed += 1
    return placed


def passes(cluster: Cluster) -> tuple[int, int]:
    """All passes of the scheduler, with what they write and send; how many, and jobs placed."""
    number = 0
    while True:
        number += 1
        effects = schedule(cluster, 0.0)
        if not any(isinstance(effect, Wake) for effect in effects):
            return number, sum(len(node.claims) for node in cluster.nodes.values())


def row(jobs: int, nodes: int) -> tuple[str, ...]:
    """Milliseconds of CPU."""
    cluster = cluster_of(jobs, nodes)
    began = time.process_time()
    placed = choose(cluster)
    chosen = time.process_time() - began
    cluster = cluster_of(jobs, nodes)
    began = time.process_time()
    number, also = passes(cluster)
    passed = time.process_time() - began
    assert placed == also, (placed, also)
    cluster = cluster_of(2 * jobs, nodes // 2)
    passes(cluster)
    began = time.process_time()
    schedule(cluster, 0.0)
    idle = time.process_time() - began
    orders = [cluster.jobs[number].order for number in list(cluster.jobs)[-1000:]]
    began = time.process_time()
    for order in orders:
        cluster.queue.ahead(order)
    asked = time.process_time() - began
    times = (chosen, passed, passed / number, idle, asked)
    return (f"{jobs} on {nodes}", str(placed), *(f"{each * 1e3:.1f}" for each in times))


def main() -> None:
    """Each size on its own cluster."""
    heading = ("jobs on nodes", "placed", "choosing", "all passes", "a pass", "full", "1000 ahead")
    rows = [heading, *(row(jobs, nodes) for jobs, nodes in SIZES)]
    show(f"placement of jobs of {SHAPES} shapes; CPU in ms", rows)


if __name__ == "__main__":
    main()
