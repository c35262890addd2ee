from __future__ import annotations

from moorage.core.launch import check_references, limits_of
from moorage.protocol.agent import GpuDevice, Limits, Start
from moorage.specs.mounts import Files, HostPath
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.task import Task

GB = 1024**3


def launched(desk, **fields):
    desk.hello(gpus=[GpuDevice(3, "nvidia", "H100", 80 * GB)])
    desk.submit(name="train", **fields)
    return next(
        effect.message.launch
        for effect in desk.schedule()
        if isinstance(getattr(effect, "message", None), Start)
    )


def test_a_launch_says_what_runs(desk):
    launch = launched(
        desk,
        commands=["./train"],
        env={"A": "1", "MOORAGE_RUN_ID": "99"},
        shell="bash",
        python="3.11",
        working_dir="src",
        max_duration=60.0,
    )
    assert (launch.run, launch.run_name, launch.user) == (1, "train", "ann")
    assert (launch.job, launch.index, launch.attempt, launch.rank, launch.nodes) == (1, 0, 1, 0, 1)
    assert (launch.shell, launch.python, launch.working_dir) == ("bash", "3.11", "src")
    assert (launch.max_duration, launch.stop_duration) == (60.0, 300.0)
    assert launch.env == {
        "A": "1",
        "MOORAGE_RUN_ID": "1",
        "MOORAGE_RUN_NAME": "train",
        "MOORAGE_JOB_ID": "1",
        "MOORAGE_JOB_INDEX": "0",
        "MOORAGE_ATTEMPT": "1",
        "MOORAGE_RANK": "0",
        "MOORAGE_NODES": "1",
        "MOORAGE_MASTER_IP": "127.0.0.1",
        "MOORAGE_NODE_IPS": "127.0.0.1",
        "MOORAGE_GPUS_PER_NODE": "0",
        "MOORAGE_GPUS": "0",
        "MOORAGE_USER": "ann",
        "MOORAGE_CPUS": "1",
    }


def test_a_dstack_file_finds_its_variables(desk):
    resources = Resources(cpu=Cpu(Range(0.5)), memory=Range(GB, 2 * GB), gpu=Gpu())
    launch = launched(desk, compat=["dstack"], resources=resources)
    assert launch.compat == ["dstack"]
    assert launch.env["MOORAGE_CPUS"] == "0.5"
    assert launch.env["MOORAGE_MEMORY"] == str(2 * GB)
    assert {k: v for k, v in launch.env.items() if k.startswith("DSTACK_")} == {
        "DSTACK_RUN_NAME": "train",
        "DSTACK_RUN_ID": "1",
        "DSTACK_JOB_ID": "1",
        "DSTACK_NODES_NUM": "1",
        "DSTACK_NODE_RANK": "0",
        "DSTACK_GPUS_NUM": "1",
        "DSTACK_GPUS_PER_NODE": "1",
        "DSTACK_MASTER_NODE_IP": "127.0.0.1",
        "DSTACK_NODES_IPS": "127.0.0.1",
    }
    assert launch.limits == Limits(memory=2 * GB, gpus=[3])


def test_references_are_filled_in_everywhere(desk):
    launch = launched(
        desk,
        commands=["echo ${{ run.name }} $${{ kept }} $HOME"],
        env={"KEY": "${{ moorage.attempt }}-${{ dstack.job_num }}"},
        mounts=[
            Files("in", "/in/${{ moorage.job_id }}", tree="d"),
            HostPath("/data/${{ run.user }}", "/data"),
        ],
    )
    assert launch.commands == ["echo train ${{ kept }} $HOME"]
    assert launch.env["KEY"] == "1-0"
    assert launch.mounts[0].target == "/in/1"
    assert launch.mounts[1].source == "/data/ann"


def test_references_that_nothing_fills_are_found():
    task = Task(commands=["echo ${{ run.name }} ${{ run.nam }}"], env={"A": "${{ }}"})
    assert [str(problem) for problem in check_references(task)] == [
        "commands: ${{ run.nam }} has no value here",
        "env.A: ${{ }} has no value here",
    ]
    assert check_references(Task(commands=["$${{ a }}"])) == []
    assert check_references(Task(commands=["true"])) == []


def test_limits_are_the_upper_bounds():
    resources = Resources(
        cpu=Cpu(Range(1, 1.5)),
        memory=Range(GB),
        shm_size=7,
        disk=Range(GB, 2 * GB),
    )
    assert limits_of(resources) == Limits(cpus=1.5, shm=7, scratch=2 * GB)
    assert limits_of(Resources()) == Limits()
