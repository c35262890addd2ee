from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.core.job import Queued, Starting
from moorage.core.node import Node
from moorage.core.queue import Queue
from moorage.core.reactor import schedule
from moorage.core.shape import Shape, shape_of
from moorage.protocol.agent import GpuDevice
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.task import Task

GB = 1024**3
A100 = [GpuDevice(n, "nvidia", "NVIDIA A100-SXM4-40GB", 40 * GB, 8.0) for n in range(2)]
H100 = [GpuDevice(n, "nvidia", "NVIDIA H100 80GB HBM3", 80 * GB, 9.0) for n in range(2, 6)]


def cpus(count: float, memory: int | None = None, **more) -> Resources:
    span = None if memory is None else Range(memory)
    return Resources(cpu=Cpu(Range(count)), memory=span, **more)


def placed(desk) -> dict[int, int]:
    """Node by job, of all that have one."""
    jobs = desk.cluster.jobs.values()
    return {job.id: job.state.node for job in jobs if isinstance(job.state, Starting)}


# shapes


def test_where_nothing_is_written_one_cpu_is_reserved():
    assert shape_of(Resources()) == Shape(1000, 0, 0, None, None)


@pytest.mark.parametrize(
    ("count", "millicpus"),
    [
        (Range(2, 8), 2000),
        (Range(0.5), 500),
        (Range(None, 4), 1000),
        (Range(None, 0.25), 250),
        (Range(0), 1),
    ],
)
def test_lower_bounds_are_reserved(count, millicpus):
    assert shape_of(Resources(cpu=Cpu(count))).millicpus == millicpus


def test_a_gpu_count_of_none_asks_for_none():
    assert shape_of(Resources(gpu=Gpu(Range(None, 2)))).gpu is None


@pytest.mark.parametrize(
    ("gpu", "picked"),
    [
        (Gpu(), (0,)),
        (Gpu(Range(2)), (0, 1)),
        (Gpu(Range(3)), (2, 3, 4)),
        (Gpu(Range(5)), None),
        (Gpu(name=["h100"]), (2,)),
        (Gpu(name=["A100-40GB", "H100"]), (2,)),
        (Gpu(name=["A10"]), None),
        (Gpu(vendor="AMD"), None),
        (Gpu(vendor="nvidia", memory=Range(64 * GB)), (2,)),
        (Gpu(memory=Range(None, 30 * GB)), None),
        (Gpu(compute_capability=Range(8.9)), (2,)),
        (Gpu(Range(1), total_memory=Range(80 * GB)), (0, 1)),
        (Gpu(Range(1, 1), total_memory=Range(160 * GB)), None),
        (Gpu(Range(1), total_memory=Range(200 * GB)), (2, 3, 4)),
    ],
)
def test_gpus_are_picked_by_model(gpu, picked):
    assert shape_of(Resources(gpu=gpu)).gpu.pick([*H100, *A100]) == picked


# placement


def test_the_node_left_with_least_is_chosen(desk):
    desk.hello(node="large", cpus=16)
    desk.hello(node="small", cpus=2)
    desk.submit(resources=cpus(2))
    desk.submit(resources=cpus(2))
    desk.schedule()
    assert placed(desk) == {1: 2, 2: 1}


def test_work_without_gpus_keeps_off_the_nodes_that_have_them(desk):
    desk.hello(node="gpus", cpus=2, gpus=A100)
    desk.hello(node="plain", cpus=16)
    desk.submit()
    desk.submit(resources=Resources(gpu=Gpu()))
    desk.schedule()
    assert placed(desk) == {1: 2, 2: 1}


def test_gpus_are_reserved_by_index(desk, say):
    desk.hello(gpus=A100)
    for _ in range(3):
        desk.submit(resources=cpus(1, gpu=Gpu()))
    sent = [e.message.launch.limits.gpus for e in desk.schedule() if hasattr(e, "message")]
    assert sent == [[0], [1]]
    desk.report(say.done("1.1.0"))
    sent = [e.message.launch.limits.gpus for e in desk.schedule() if hasattr(e, "message")]
    assert sent == [[0]]


def test_priority_first_then_age(desk):
    desk.hello(cpus=2)
    for priority in (0, 50, 0, 50):
        desk.submit(priority=priority)
    desk.schedule()
    assert sorted(placed(desk)) == [2, 4]


def test_age_counts_across_shapes(desk):
    desk.hello(cpus=3)
    for count in (1, 2, 1):
        desk.submit(resources=cpus(count))
    desk.schedule()
    assert sorted(placed(desk)) == [1, 2]


def test_what_does_not_fit_holds_nothing_back(desk):
    desk.hello(cpus=4)
    desk.submit(resources=cpus(3))
    desk.schedule()
    desk.submit(resources=cpus(4), priority=100)
    desk.submit(resources=cpus(1))
    desk.schedule()
    assert sorted(placed(desk)) == [1, 3]


@pytest.mark.parametrize(
    "resources",
    [
        cpus(5),
        cpus(1, 17 * GB),
        Resources(disk=Range(101 * GB)),
        Resources(cpu=Cpu(arch="arm")),
        Resources(gpu=Gpu()),
    ],
)
def test_everything_asked_for_must_be_there(desk, resources):
    desk.submit(resources=resources)
    desk.hello()
    assert desk.schedule() == []


def test_two_shapes_share_a_node_without_taking_too_much(desk):
    desk.hello(cpus=4, memory=4 * GB)
    for count, memory in ((1, 3 * GB), (2, GB), (1, GB), (2, GB), (1, 0)):
        desk.submit(resources=cpus(count, memory))
    desk.schedule()
    assert sorted(placed(desk)) == [1, 2, 5]
    assert desk.cluster.nodes[1].free_memory == 0


def test_fractions_of_cpus_add_up_exactly(desk, say):
    desk.hello(cpus=1)
    for _ in range(11):
        desk.submit(resources=cpus(0.1))
    desk.schedule()
    assert len(placed(desk)) == 10
    assert desk.cluster.nodes[1].used_cpus == 1.0
    desk.report(*(say.done(f"{job}.1.0") for job in placed(desk)))
    assert desk.cluster.nodes[1].used_cpus == 0


# the queue


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 40)), max_size=60))
def test_the_queue_gives_what_a_sorted_list_would(steps):
    """Jobs enter, leave from anywhere, and come back; heads are always the oldest there."""
    queue, there = Queue(), {}
    shapes = [Shape(n + 1, 0, 0, None, None) for n in range(2)]
    for priority, leave, number in steps:
        if number in there and leave:
            queue.remove(number)
            del there[number]
        elif number not in there:
            job = _Job(number, shapes[number % 2], priority)
            queue.add(job, delayed=False)
            there[number] = job
        heads = {}
        for number, job in sorted(there.items()):
            heads.setdefault((-job.priority, job.shape), number)
        assert {(order, group.shape): head for order, head, group in queue.groups()} == heads
        assert len(queue) == len(there)
    assert sum(map(len, queue._blocks.values())) <= len(there)
    for job in there.values():
        assert queue.ahead(job.order) == sum(o.order < job.order for o in there.values())


class _Job:
    """The part of a job that the queue looks at."""

    def __init__(self, number: int, shape: Shape, priority: int) -> None:
        self.id, self.shape, self.priority = number, shape, priority
        self.order = (-priority, number)
        self.gang = ()


def test_a_delayed_job_is_there_but_not_served(desk):
    queue = Queue()
    job = _Job(1, Shape(1, 0, 0, None, None), 0)
    queue.add(job, delayed=True)
    assert 1 in queue
    assert queue.groups() == []
    assert queue.mature(1)
    assert not queue.mature(1)
    [(order, number, group)] = queue.groups()
    assert (order, number, group.shape) == (0, 1, job.shape)
    queue.remove(1)
    assert queue.head(group) is None
    assert 1 not in queue


def test_many_jobs_of_few_shapes_look_at_each_node_once_a_shape(desk, monkeypatch):
    """Counts the questions asked, not the time."""
    asked = 0
    fits = Node.fits

    def counting(node, shape):
        nonlocal asked
        asked += 1
        return fits(node, shape)

    monkeypatch.setattr(Node, "fits", counting)
    for number in range(50):
        desk.hello(node=f"n{number}", cpus=4)
    for number in range(600):
        desk.submit(resources=cpus(1 + number % 2), priority=number % 3)
    desk.schedule()
    assert sum(node.free_millicpus for node in desk.cluster.nodes.values()) == 0
    assert asked < 2 * 50 + 3 * 200
    assert all(isinstance(j.state, Queued | Starting) for j in desk.cluster.jobs.values())


def test_a_pass_ends_after_so_many_and_asks_for_the_next(desk, say):
    desk.hello(cpus=5)
    desk.submit(*[Task()] * 7)
    passes = [say.brief(schedule(desk.cluster, desk.now, limit=2)) for _ in range(4)]
    started = [[line for line in lines if "start " in line] for lines in passes]
    assert [len(lines) for lines in started] == [2, 2, 1, 0]
    assert [lines[-1:] == ["wake"] for lines in passes] == [True, True, False, False]
    assert started[2] == ["-> 1 start 5.1"]


def test_lines_are_filled_in_as_many_passes(desk, say):
    desk.hello(cpus=1)
    desk.submit(*[Task()] * 8)
    desk.schedule()
    desk.report(say.done("1.1.0"))
    desk.schedule()
    desk.down()
    desk.hello(say.running("2.1.0"), cpus=1)
    passes = [say.brief(schedule(desk.cluster, desk.now, limit=1)) for _ in range(2)]
    assert passes == [[], []], "a line of four is full"
    desk.report(say.done("2.1.0"), say.done("3.1.0"), say.done("4.1.0"), say.running("5.1.0"))
    passes = [say.brief(schedule(desk.cluster, desk.now, limit=1)) for _ in range(3)]
    assert [lines[-1:] for lines in passes] == [["wake"], ["-> 1 wait 8.1"], []]
