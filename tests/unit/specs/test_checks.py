"""The same rules for a spec that no loader has seen."""

from __future__ import annotations

from moorage.specs.checks import check_task
from moorage.specs.mounts import Files, HostPath, Repo
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.schedule import Schedule
from moorage.specs.task import Task


def test_a_sound_task() -> None:
    task = Task(
        name="train",
        commands=["x"],
        shell="bash",
        python="3.11",
        working_dir="~/x",
        env={"A": "1"},
        tags={"a": "b"},
        schedule=Schedule(["0 3 * * *"]),
        mounts=[
            Files("a", "b"),
            Repo(url="https://h/r"),
            HostPath("/a", "/b"),
            HostPath("c", "/d"),
        ],
        resources=Resources(memory=Range(1, 2), gpu=Gpu(), disk=Range(1), shm_size=1),
    )
    assert check_task(task) == []


def test_everything_wrong_at_once() -> None:
    task = Task(
        name="X",
        shell="zsh",
        python="2.7",
        working_dir="..",
        env={"1": ""},
        tags={"a b": "é"},
        schedule=Schedule(["x"]),
        mounts=[
            *(Files("a", "/proc"), Repo(target="~x"), HostPath("a/b", "c")),
        ],
        resources=Resources(
            cpu=Cpu(Range(0, 2)),
            memory=Range(3, 2),
            disk=Range(-1),
            shm_size=0,
            gpu=Gpu(Range(-1)),
        ),
        priority=-1,
        max_duration=-1,
    )
    fields = [problem.field for problem in check_task(task)]
    assert fields == [
        *("name", "shell", "python", "working_dir", "env", "tags", "tags", "schedule.cron"),
        *("files", "repos", "volumes", "volumes"),
        *("commands", "priority", "max_duration"),
        *("resources.cpu", "resources.memory", "resources.disk"),
        *("resources.gpu", "resources.shm_size"),
    ]


def test_mounts_that_clash() -> None:
    task = Task(commands=["x"], mounts=[HostPath("/a", "/d"), HostPath("/b", "/d/e")])
    assert [str(problem) for problem in check_task(task)] == [
        "mounts: the volumes at /d and /d/e lie in each other"
    ]
