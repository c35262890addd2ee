"""Specs from command lines."""

from __future__ import annotations

import pytest

from moorage.errors import InvalidInput
from moorage.specs.mounts import HostPath
from moorage.specs.options import override, task_from_command
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.task import Task

GB = 1024**3


def test_nothing_given_changes_nothing() -> None:
    task = Task(name="aa", commands=["x"], resources=Resources(memory=Range(GB, GB)))
    assert override(task) == task


def test_what_is_given_replaces() -> None:
    task = Task(name="aa", commands=["x"], env={"A": "1", "B": "2"}, priority=3)
    changed = override(
        task,
        name="bb",
        env={"B": "${{ x }}", "C": "3"},
        cpu="2..8",
        memory="24GiB..",
        gpu="A100:2",
        disk="1TB..",
        max_duration="1h30m",
        priority=9,
    )
    assert changed == Task(
        name="bb",
        commands=["x"],
        env={"A": "1", "B": "$${{ x }}", "C": "3"},
        resources=Resources(
            cpu=Cpu(Range(2, 8)),
            memory=Range(24 * GB, None),
            gpu=Gpu(Range(2, 2), name=["A100"]),
            disk=Range(1024 * GB, None),
        ),
        max_duration=5400,
        priority=9,
    )
    assert override(changed, gpu="0").resources.gpu is None


def test_a_command() -> None:
    task = task_from_command(
        ["echo", "a b", "${{ run.id }}"],
        env={"A": "1"},
        volumes=["/a:/b:ro", "/c:/d"],
        name="quick",
        memory="1",
    )
    assert task == Task(
        name="quick",
        commands=["echo 'a b' '$${{ run.id }}'"],
        env={"A": "1"},
        mounts=[HostPath("/a", "/b", read_only=True), HostPath("/c", "/d")],
        resources=Resources(memory=Range(GB, GB)),
    )


def test_every_problem_names_its_option() -> None:
    with pytest.raises(InvalidInput) as caught:
        task_from_command(
            [],
            name="X",
            env={"1A": "hunter2"},
            volumes=["/a", "a:/b", "/a:/x", "/b:/x"],
            cpu="many",
            memory="8XB",
            gpu="A:B",
            disk="..",
            max_duration="soon",
            priority=101,
        )
    assert [str(problem) for problem in caught.value.problems] == [
        "--: there is no command; write it after --, or name an --image that has one",
        "--volume: '/a' is not a volume; write /path/on/node:/path/in/job, with :ro to read only",
        "--volume: 'a:/b' is not an absolute path on the node; begin it with /",
        "--volume: two mounts have the target /x",
        "--name: 'X' is not a run name; use 2 to 41 lowercase letters, digits and dashes, "
        "starting with a letter",
        "--env: '1A' is not a variable name; use letters, digits and _, not first a digit",
        "--cpu: 'many' is not a CPU request such as 4, 2..8 or arm:8..",
        "--memory: '8XB' is not a size such as 512MB, 24GB or 1.5TB",
        "--gpu: 'A:B' is not a GPU request such as H100:2 or A100,H100:80GB:1; 'B' is no count "
        "and no size; names have commas between",
        "--disk: '..' is not a range; write at least one bound: 2.., ..8 or 2..8",
        "--max-duration: 'soon' is not a duration such as 90s, 45m, 1h30m or 2d, or off",
        "--priority: '101' is not a priority from 0 to 100",
    ]


def test_an_image_has_a_command_of_its_own():
    task = task_from_command([], image="hello-world")
    assert (task.commands, task.image) == ([], "hello-world")
