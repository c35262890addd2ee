"""Nodes that are split into blocks, and jobs that want a node alone."""

from __future__ import annotations

import pytest

from moorage.core.explain import explain
from moorage.core.node import Node
from moorage.core.reactor import on_apply_fleet
from moorage.core.shape import shape_of
from moorage.protocol.agent import GpuDevice, Isolation, NodeResources
from moorage.specs.fleet import Fleet, Host
from moorage.specs.resources import Cpu, Gpu, Range, Resources

GB = 1024**3
H100 = [GpuDevice(n, "nvidia", "NVIDIA H100", 80 * GB, 9.0) for n in range(8)]


def split(desk, blocks, gpus=(), cpus: int = 16) -> Node:
    """The only node, a host of a fleet."""
    apply(desk, blocks)
    desk.hello(node="lab-0", cpus=cpus, memory=64 * GB, gpus=list(gpus))
    return desk.cluster.nodes[1]


def apply(desk, blocks) -> None:
    hosts = (Host(hostname="a", blocks=blocks),)
    on_apply_fleet(desk.cluster, Fleet(name="lab", hosts=hosts), desk.now)


def wants(cpus: float = 1, memory: int = 0, gpu: Gpu | None = None) -> Resources:
    return Resources(Cpu(Range(cpus)), Range(memory) if memory else None, gpu=gpu)


@pytest.mark.parametrize(
    ("blocks", "gpus", "found"),
    [("auto", H100, 8), ("auto", (), 16), (4, H100, 4), (1, (), 1), (None, H100, 0)],
)
def test_a_host_says_into_how_many_blocks_it_is_split(desk, blocks, gpus, found):
    assert split(desk, blocks, gpus).blocks == found


@pytest.mark.parametrize(
    ("resources", "blocks"),
    [
        (wants(), 1),
        (wants(4), 1),
        (wants(4.5), 2),
        (wants(1, 16 * GB), 1),
        (wants(1, 17 * GB), 2),
        (wants(1, 0, Gpu()), 1),
        (wants(1, 0, Gpu(Range(3))), 2),
        (wants(9, 17 * GB, Gpu(Range(8))), 4),
        (wants(1, 0, Gpu(Range(1), total_memory=Range(200 * GB))), 2),
    ],
)
def test_the_fewest_blocks_that_cover_a_job(desk, resources, blocks):
    node = split(desk, 4, H100)
    assert node.blocks_for(shape_of(resources)) == blocks
    desk.submit(resources=resources)
    desk.schedule()
    assert node.free_blocks == 4 - blocks


@pytest.mark.parametrize(
    ("count", "found"), [(Range(1), 2), (Range(1, 1), 1), (Range(3, 3), 3), (Range(3, 8), 4)]
)
def test_gpus_of_its_blocks_are_its_own_as_far_as_its_range_goes(desk, count, found):
    node = split(desk, 4, H100)
    desk.submit(resources=wants(1, 0, Gpu(count)))
    desk.schedule()
    assert len(node.claims[1].gpus) == found


def test_more_gpus_are_of_the_same_model_and_within_the_memory_asked_for(desk):
    mixed = [*H100[:3], *(GpuDevice(n, "nvidia", "NVIDIA A100", 40 * GB) for n in range(3, 8))]
    node = split(desk, 2, mixed)
    desk.submit(resources=wants(1, 0, Gpu(name=["H100"])))
    bounds = Range(40 * GB, 90 * GB)
    desk.submit(resources=wants(1, 0, Gpu(name=["A100"], total_memory=bounds)))
    desk.schedule()
    assert [claim.gpus for claim in node.claims.values()] == [(0, 1, 2), (3, 4)]


def test_whole_blocks_are_taken_and_given_back(desk, say):
    node = split(desk, 2)
    for _ in range(3):
        desk.submit(resources=wants(1))
    desk.schedule()
    assert list(node.claims) == [1, 2]
    assert "1 block: node lab-0 has 0 of 2 free" in explain(desk.cluster, desk.job(3), desk.now)
    desk.report(say.done("1.1.0"))
    desk.schedule()
    assert list(node.claims) == [2, 3]


def test_another_number_of_blocks_counts_at_once(desk):
    node = split(desk, 2)
    desk.submit(resources=wants(8))
    desk.schedule()
    apply(desk, 4)
    assert (node.blocks, node.free_blocks) == (4, 2)
    apply(desk, None)
    assert node.blocks == 0
    for _ in range(8):
        desk.submit(resources=wants(1))
    desk.schedule()
    assert len(node.claims) == 9


def test_jobs_of_a_line_are_counted_in_blocks(desk):
    node = split(desk, 4)
    shape = shape_of(wants(5))
    assert node.fits(shape)
    assert node.times(shape) == 2


def test_one_that_wants_a_node_alone_waits_for_an_empty_one_and_keeps_it(desk, say):
    desk.hello(cpus=4)
    desk.submit(name="small")
    desk.schedule()
    desk.submit(name="whole", exclusive=True)
    desk.schedule()
    text = explain(desk.cluster, desk.job(2), desk.now)
    assert text == "a node of its own: node box is used by small"
    desk.report(say.done("1.1.0"))
    desk.submit(name="late")
    desk.schedule()
    node = desk.cluster.nodes[1]
    assert list(node.claims) == [2]
    assert node.used_cpus == 4
    assert "0 of 4 free (whole uses the rest)" in explain(desk.cluster, desk.job(3), desk.now)
    desk.report(say.done("2.1.0"))
    desk.schedule()
    assert list(node.claims) == [3]


def test_of_nodes_with_the_same_room_only_the_empty_one_will_do(desk):
    desk.hello(node="used", cpus=4, memory=0)
    desk.submit(resources=wants(2))
    desk.schedule()
    desk.hello(node="empty", cpus=2, memory=0)
    desk.submit(exclusive=True)
    desk.schedule()
    assert list(desk.cluster.nodes[2].claims) == [2]


def test_each_rank_is_alone(desk):
    for name in ("a", "b"):
        desk.hello(node=name)
    desk.submit(name="small")
    desk.schedule()
    desk.submit(nodes=2, exclusive=True)
    desk.submit()
    desk.schedule()
    claims = [list(node.claims) for node in desk.cluster.nodes.values()]
    assert sorted(claims) == [[], [1]]


def test_it_stands_in_no_line_and_sees_only_the_gpus_it_asked_for(desk):
    shape = shape_of(wants(1, 0, Gpu()), exclusive=True)
    assert (shape_of(wants(), exclusive=True).line, shape.plain) == ("", False)
    has = NodeResources(4, "x86", GB, GB, H100[:2])
    node = Node(1, "n", "b", "1", has, Isolation(), [], True, None)
    assert node.reserve(1, shape) == (4000, GB, GB, (0,))
    assert not node.fits(shape_of(wants(0)))


def test_small_jobs_do_not_starve_one_that_wants_a_node_alone(desk, say):
    for name in ("a", "b"):
        desk.hello(node=name, cpus=2)
    for _ in range(3):
        desk.submit(resources=wants(1))
    desk.schedule()
    desk.submit(exclusive=True)
    for _ in range(4):
        desk.submit(resources=wants(1))
    desk.schedule()
    nodes = desk.cluster.nodes
    kept = desk.cluster.hold.nodes[0]
    assert len(nodes[kept].claims) == 1
    assert len(nodes[3 - kept].claims) == 2
    (last,) = nodes[kept].claims
    desk.report(say.done(f"{last}.1.0"), node=kept)
    desk.schedule()
    assert list(nodes[kept].claims) == [4]
    desk.schedule()
    assert desk.cluster.hold is None


def test_the_node_kept_is_the_one_that_is_free_soonest_in_any_fleet(desk):
    apply(desk, None)
    desk.hello(node="lab-0", cpus=2)
    desk.hello(node="box", cpus=2)
    desk.hello(node="hut", cpus=2)
    for _ in range(6):
        desk.submit(resources=wants(1))
    desk.schedule()
    first = desk.cluster.nodes[2]
    del first.claims[next(iter(first.claims))]
    desk.submit(exclusive=True)
    desk.schedule()
    assert desk.cluster.hold.nodes == (2,)
