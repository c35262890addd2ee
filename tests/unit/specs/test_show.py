"""A spec shown as a file loads to the same spec."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from moorage.interpolate import escape
from moorage.specs.load import load
from moorage.specs.mounts import Files, HostPath, Repo
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.retry import Retry
from moorage.specs.schedule import Schedule
from moorage.specs.show import dump
from moorage.specs.task import Task

GB = 1024**3


def test_a_file() -> None:
    task = Task(
        name="train",
        commands=["pip install x", "python a.py\nexit 1\n"],
        python="3.10",
        env={"A": "1", "TOKEN": "hunter2"},
        mounts=[
            Files("src", "."),
            Repo(source=".", target="code"),
            HostPath("/data", "/d", True),
        ],
        resources=Resources(
            Cpu(Range(2, 8), "arm"), Range(8 * GB, 16 * GB), GB, Gpu(name=["A100"])
        ),
        retry=Retry(("error",), 5400),
        max_duration=7200,
        stop_duration=None,
        compat=["dstack"],
    )
    assert (
        dump(task, inherited={"TOKEN"})
        == """\
type: task
name: train
python: '3.10'
env:
  A: '1'
  TOKEN: null
commands:
- pip install x
- |
  python a.py
  exit 1
files:
- local_path: src
  path: .
repos:
- local_path: .
  path: code
volumes:
- instance_path: /data
  path: /d
  read_only: true
resources:
  cpu: arm:2..8
  memory: 8GB..16GB
  shm_size: 1GB
  gpu:
    name:
    - A100
    count: 1..
retry:
  on_events:
  - error
  duration: 1h30m
max_duration: 2h
stop_duration: 'off'
compat:
- dstack
# on_node_loss: wait
"""
    )


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
LINES = st.lists(TEXT, min_size=1, max_size=3).map("\n".join)
WORD = st.from_regex("[a-z][a-z0-9_]{1,8}", fullmatch=True)
COMMAND = st.builds(
    lambda text, tail: f"x{escape(text)}{tail}",
    LINES,
    st.sampled_from(["", " ${{ run.name }}", " ${{ moorage.job_id }} $DSTACK_X"]),
)
SECONDS = st.integers(1, 10**9).map(lambda thousandths: thousandths / 1000)


def spans(bound: st.SearchStrategy[float]) -> st.SearchStrategy[Range]:
    return st.builds(
        lambda low, high: Range(min(low, high), max(low, high)), bound, bound
    ) | bound.map(lambda low: Range(low, None))


SIZES = spans(st.integers(1, 2**50).map(float))
COUNTS = spans(st.integers(1, 64).map(float))
GPUS = st.builds(
    Gpu,
    count=COUNTS,
    vendor=st.none() | st.sampled_from(["nvidia", "amd"]),
    name=st.lists(WORD, max_size=2),
    memory=st.none() | SIZES,
    total_memory=st.none() | SIZES,
    compute_capability=st.none() | spans(st.sampled_from([7.5, 8.0, 9.0])),
)
RESOURCES = st.builds(
    Resources,
    cpu=st.builds(Cpu, COUNTS, st.sampled_from([None, "arm", "x86"])),
    memory=st.none() | SIZES,
    shm_size=st.none() | st.integers(1, 2**50),
    gpu=st.none() | GPUS,
    disk=st.none() | SIZES,
)


@st.composite
def mounts(draw: st.DrawFn) -> list[Any]:
    names = draw(st.lists(WORD, unique=True, max_size=6))
    files = [Files(f"local/{name}", name) for name in names[:2]]
    repos = [
        draw(
            st.sampled_from(
                [Repo(source="a:b", target=name), Repo(url="https://h/r", target=name)]
            )
        )
        for name in names[2:4]
    ]
    flags = st.booleans()
    volumes = [
        HostPath(draw(st.sampled_from(["/a b", "kept"])), f"/v/{name}", draw(flags), draw(flags))
        for name in names[4:]
    ]
    return [*files, *repos, *volumes]


TASKS = st.builds(
    Task,
    name=st.none() | st.just("train-1"),
    commands=st.lists(COMMAND, min_size=1, max_size=3),
    shell=st.sampled_from([None, "sh", "/bin/zsh"]),
    python=st.sampled_from([None, "3.9", "3.10"]),
    working_dir=st.sampled_from([None, "~/x", "sub dir"]),
    env=st.dictionaries(WORD.map(str.upper), LINES.map(escape), max_size=3),
    mounts=mounts(),
    resources=RESOURCES,
    priority=st.integers(0, 100),
    retry=st.none() | st.builds(Retry, st.sampled_from([("error",), Retry().on_events]), SECONDS),
    max_duration=st.none() | SECONDS,
    stop_duration=st.none() | SECONDS,
    schedule=st.none() | st.just(Schedule(["0 3 * * *", "5 4 1 * MON"])),
    tags=st.dictionaries(
        WORD, st.from_regex("[a-zA-Z0-9 .:/=_@+-]{0,9}", fullmatch=True), max_size=2
    ),
    compat=st.sampled_from([[], ["dstack"]]),
)


@given(TASKS)
def test_loading_gives_the_task_back(task: Task) -> None:
    assert load(dump(task), file="a.yml", environ={}).spec == task
