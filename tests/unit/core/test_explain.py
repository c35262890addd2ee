from __future__ import annotations

import msgspec
import pytest

from moorage.core.explain import away, doing, explain, fits_ever, waits_for
from moorage.protocol.agent import GpuDevice, Held, Phase
from moorage.protocol.mounts import MountHealth
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.retry import Retry
from moorage.specs.schedule import Schedule
from moorage.specs.task import Task

GB = 1024**3
H100 = GpuDevice(0, "nvidia", "NVIDIA H100", 80 * GB)


def why(desk, number: int) -> str:
    return explain(desk.cluster, desk.job(number), desk.now)


def cpus(count: float) -> Resources:
    return Resources(cpu=Cpu(Range(count)))


def test_no_node(desk):
    desk.submit()
    assert why(desk, 1) == "a node: none is connected"
    desk.hello()
    assert why(desk, 1) == "its turn: it starts next"
    desk.down()
    assert why(desk, 1) == "a node: none is connected (down: box)"


def test_it_names_what_is_missing_who_has_it_and_who_is_ahead(desk):
    desk.hello()
    desk.submit(name="train", resources=cpus(2.5))
    desk.submit(name="eval")
    desk.schedule()
    desk.submit(resources=cpus(2))
    desk.submit(resources=cpus(2))
    assert why(desk, 1) == ""
    assert why(desk, 3) == ("2 CPUs: node box has 0.5 of 4 free (train, eval use the rest)")
    assert why(desk, 4).endswith("(train, eval use the rest); 1 job is ahead")


def test_all_kinds_of_resources_in_one_line(desk):
    desk.hello(gpus=[H100])
    everything = Resources(
        cpu=Cpu(Range(3)), memory=Range(10 * GB), disk=Range(60 * GB), gpu=Gpu(name=["H100"])
    )
    desk.submit(name="big", resources=everything)
    desk.submit(name="next", resources=everything)
    desk.schedule()
    assert why(desk, 2) == (
        "3 CPUs and 10 GB of memory and 60 GB of disk and 1 GPU (h100): node box has "
        "1 of 4 free and 6.0 GB of 16 GB free and 40 GB of 100 GB free and 0 of 1 GPU free "
        "(big uses the rest)"
    )


def test_many_users_are_counted(desk):
    desk.hello()
    for _ in range(4):
        desk.submit()
    desk.schedule()
    desk.submit()
    assert "(run-1, run-2, run-3 and 1 more use the rest)" in why(desk, 5)


def test_jobs_ahead_are_told_where_there_is_room(desk):
    desk.hello()
    for _ in range(3):
        desk.submit()
    assert why(desk, 1) == "its turn: it starts next"
    assert why(desk, 3) == "its turn: 2 jobs are ahead"
    assert explain(desk.cluster, desk.job(3), desk.now, brief=True) == "its turn"


def test_a_retry_says_when(desk, say):
    desk.started(retry=Retry())
    desk.report(say.done("1.1.0", 1))
    assert why(desk, 1) == "its next try, in 1.0s"
    desk.now += 2
    assert why(desk, 1) == "its turn: it starts next"


def test_a_plan_knows_what_it_would_wait_for(desk):
    assert waits_for(desk.cluster, Task()) == "a node: none is connected"
    desk.hello()
    assert waits_for(desk.cluster, Task()) == ""
    desk.submit(name="train", resources=cpus(3))
    desk.submit(resources=cpus(2))
    desk.schedule()
    assert waits_for(desk.cluster, Task()) == ""  # the job ahead has no use for what is free
    lack = "2 CPUs: node box has 1 of 4 free (train uses the rest)"
    two = cpus(2)
    assert waits_for(desk.cluster, Task(resources=two)) == f"{lack}; 1 job is ahead"
    assert waits_for(desk.cluster, Task(resources=two, priority=1)) == lack
    assert waits_for(desk.cluster, Task(schedule=Schedule(["0 3 * * *"]))) == "its schedule"


@pytest.mark.parametrize(
    ("resources", "field", "message"),
    [
        (cpus(8), "resources.cpu", "needs 8 CPUs, the largest node has 4"),
        (
            Resources(memory=Range(64 * GB)),
            "resources.memory",
            "needs 64 GB of memory, the largest node has 16 GB",
        ),
        (
            Resources(memory=Range(int(16.2 * GB))),
            "resources.memory",
            "needs 16.20 GB of memory, the largest node has 16.00 GB",
        ),
        (
            Resources(disk=Range(1024 * GB)),
            "resources.disk",
            "needs 1.0 TB of disk, the largest node has 100 GB",
        ),
        (
            Resources(cpu=Cpu(arch="arm")),
            "resources.cpu",
            "needs an arm CPU, all nodes are x86",
        ),
        (
            Resources(gpu=Gpu(Range(2), memory=Range(40 * GB))),
            "resources.gpu",
            "needs 2 GPUs with 40 GB each, the nodes have NVIDIA H100 80 GB",
        ),
        (
            Resources(gpu=Gpu(vendor="AMD", total_memory=Range(400 * GB))),
            "resources.gpu",
            "needs 1 GPU (amd) with 400 GB in all, the nodes have NVIDIA H100 80 GB",
        ),
        (
            Resources(cpu=Cpu(Range(3)), gpu=Gpu()),
            "resources",
            "needs all of its resources on one node, no node has them together",
        ),
    ],
)
def test_what_no_node_could_ever_run(desk, resources, field, message):
    assert fits_ever(desk.cluster, Task(resources=resources)) == []
    desk.submit(resources=resources)
    desk.hello(gpus=[H100], cpus=2)
    desk.hello(node="other", cpus=4)
    problems = fits_ever(desk.cluster, Task(resources=resources))
    assert [(p.field, p.message) for p in problems] == [
        (field, f"no node can ever run this: {message}")
    ]
    assert why(desk, 1) == f"another node: none that is connected can ever run this: {message}"


def test_a_node_that_is_down_may_come_back(desk):
    desk.hello(cpus=8)
    desk.hello(node="small", cpus=1)
    desk.down()
    assert fits_ever(desk.cluster, Task(resources=cpus(8))) == []


def test_no_gpu_anywhere(desk):
    desk.hello()
    problems = fits_ever(desk.cluster, Task(resources=Resources(gpu=Gpu())))
    assert str(problems[0]).endswith("needs 1 GPU, no node has a GPU")


def test_a_node_without_contact_is_told_apart_from_what_a_job_waits_for(desk):
    desk.started()
    assert away(desk.cluster, desk.job()) is None
    desk.down()
    gone = away(desk.cluster, desk.job())
    assert gone is not None
    assert (gone.node, gone.state) == ("box", "down")
    assert why(desk, 1).startswith("node box, which is down")


def test_how_far_a_phase_is(desk):
    desk.hello()
    desk.submit()
    desk.schedule()
    assert doing(desk.job(1)) == ""
    fetching = Phase("fetch", 2.0, detail="fetching 3 of 9 MB")
    desk.report(Held("1.1.0", "staging", [Phase("claim", 1.0, 2.0), fetching]))
    assert doing(desk.job(1)) == "fetching 3 of 9 MB"
    over = msgspec.structs.replace(fetching, ended=3.0)
    desk.report(Held("1.1.0", "running", [over, Phase("run", 3.0)]))
    assert doing(desk.job(1)) == ""
    mounts = [
        MountHealth("/a", "restarted once: it hung", 1),
        MountHealth("/b", "stalled: store lab has not answered for 12s", 0, 5.0),
    ]
    run = Phase(
        "run", 3.0, None, "; ".join(f"{one.target} {one.message}" for one in mounts), mounts
    )
    desk.report(Held("1.1.0", "running", [over, run]))
    assert doing(desk.job(1)) == "/b stalled: store lab has not answered for 12s"
