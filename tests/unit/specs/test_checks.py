"""The same rules for a spec that no loader has seen."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from moorage.specs.checks import check_task
from moorage.specs.mounts import Files, HostPath, Repo
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.retry import Retry
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


GOOD = Task(commands=["x"])


@pytest.mark.parametrize(
    ("task", "field"),
    [
        (replace(GOOD, schedule=Schedule([])), "schedule.cron"),
        (replace(GOOD, commands=["a\0b"]), "commands"),
        (replace(GOOD, env={"A": "a\0b"}), "env"),
        (replace(GOOD, working_dir="a\0b"), "working_dir"),
        (replace(GOOD, mounts=[HostPath("/a\0", "/b")]), "mounts"),
        (replace(GOOD, mounts=[HostPath("..", "/b")]), "volumes"),
        (replace(GOOD, mounts=[HostPath("", "/b")]), "volumes"),
        (replace(GOOD, max_duration=0), "max_duration"),
        (replace(GOOD, max_duration=1e300), "max_duration"),
        (replace(GOOD, stop_duration=1e300), "stop_duration"),
        (replace(GOOD, retry=Retry(duration=-1)), "retry.duration"),
        (replace(GOOD, resources=Resources(shm_size=10**30)), "resources.shm_size"),
        (replace(GOOD, resources=Resources(memory=Range(max=1e300))), "resources.memory"),
        (replace(GOOD, resources=Resources(cpu=Cpu(Range(1e300, 1e301)))), "resources.cpu"),
    ],
)
def test_what_no_node_could_be_told(task: Task, field: str) -> None:
    assert [problem.field for problem in check_task(task)] == [field]


@pytest.mark.parametrize(
    "text",
    [
        '{"command": ["x"]}',
        '{"resources": {"cpus": 4}}',
        '{"resources": {"cpu": {"max": 4}}}',
        '{"resources": {"memory": {"mx": 4}}}',
        '{"resources": {"gpu": {"model": []}}}',
        '{"retry": {"on_event": []}}',
        '{"schedule": {"cron": [], "zone": "CET"}}',
        '{"mounts": [{"type": "files", "source": "a", "target": "b", "mode": 1}]}',
        '{"mounts": [{"type": "repo", "depth": 1}]}',
        '{"mounts": [{"type": "repo", "if_exists": "delete"}]}',
        '{"mounts": [{"type": "host", "source": "/a", "target": "/b", "readonly": true}]}',
    ],
)
def test_what_is_no_field_of_a_spec_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Task)
