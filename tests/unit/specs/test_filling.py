"""What becomes known at launch."""

from __future__ import annotations

import pytest

from moorage.errors import InvalidInput
from moorage.specs.filling import interpolate_spec, job_values
from moorage.specs.mounts import Files, HostPath, Repo
from moorage.specs.task import Task

TASK = Task(
    commands=["echo ${{ run.id }} ${{ moorage.attempt }} $${{ x }} $$"],
    env={"OUT": "/d/${{ run.name }}/${{ moorage.job_index }}"},
    working_dir="w/${{ run.user }}",
    mounts=[
        HostPath("/d/${{ run.name }}", "/o/${{ dstack.job_num }}"),
        Files("a$${{b", "in/${{ run.id }}"),
        Repo(url="https://h/${{ run.user }}", branch="${{ run.name }}", hash="${{ run.id }}"),
        Repo(source=".", target="r"),
    ],
)
JOB = job_values(run=7, name="train", user="ann", job=9, index=2, attempt=1)


def test_every_template_is_filled() -> None:
    launched = interpolate_spec(TASK, JOB)
    assert launched.commands == ["echo 7 1 ${{ x }} $$"]
    assert launched.env == {"OUT": "/d/train/2"}
    assert launched.working_dir == "w/ann"
    assert launched.mounts == [
        HostPath("/d/train", "/o/2"),
        Files("a$${{b", "in/7"),
        Repo(url="https://h/ann", branch="train", hash="7"),
        Repo(source=".", target="r"),
    ]


def test_what_nothing_gives_is_said() -> None:
    task = Task(
        commands=["${{ env.A }}"], env={"B": "${{ x.y }}"}, mounts=[Files("a", "${{ z.z }}")]
    )
    with pytest.raises(InvalidInput) as caught:
        interpolate_spec(task, JOB)
    assert [str(problem) for problem in caught.value.problems] == [
        "commands: ${{ env.A }} has no value here",
        "env.B: ${{ x.y }} has no value here",
        "mounts: ${{ z.z }} has no value here",
    ]
