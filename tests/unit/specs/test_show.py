"""A spec shown as a file loads to the same spec."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.interpolate import escape
from moorage.specs.load import load
from moorage.specs.mounts import Bucket, CacheOptions, Files, HostPath, Repo
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


def several(low: int, high: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(low, high)


SHARE = st.none() | SECONDS
CACHES = st.builds(
    CacheOptions,
    transfers=several(1, 64),
    buffer_size=several(0, 2**40),
    cache_size=several(0, 2**50),
    cache_age=SHARE,
    read_ahead=several(0, 2**30),
    chunk_size=several(0, 2**30),
    chunk_streams=several(0, 32),
    write_back=SHARE,
)
PLACES = st.sampled_from(
    [
        {"store": "s3", "bucket": "buck.et", "path": "a b/é"},
        {"store": "azure", "bucket": "cont", "account": "acct", "path": "x"},
        {"store": "azure", "bucket": "cont"},
        {"store": "ibm", "bucket": "buck", "region": "us-east"},
        {"store": "oci", "bucket": "buck", "account": "space"},
        {"store": "file", "bucket": "data $${{", "path": "x/${{ run.name }}"},
        {"store": "hf", "bucket": "datasets/a/b@v1", "mode": "copy"},
        {"store": "minio", "bucket": "b_1", "path": "$${{ x }}"},
        {"bucket": "buck", "managed": True, "path": "a/${{ moorage.job_index }}"},
        {"store": "gcs", "bucket": "buck", "managed": True, "persistent": False},
        {"bucket": "buck", "managed": True, "sources": ["./a", "~/b c"], "listed": True},
        {"bucket": "buck", "managed": True, "sources": ["a$${{"]},
    ]
)


@st.composite
def buckets(draw: st.DrawFn, target: str) -> Bucket:
    place = draw(PLACES)
    mode = place.get("mode") or draw(st.sampled_from(["mount", "cached", "copy"]))
    cached = mode == "cached"
    preset = draw(st.none() | st.sampled_from(["dataset-ro", "dataset-rw"])) if cached else None
    read_only = preset == "dataset-ro" or (preset is None and draw(st.booleans()))
    may_write = place.get("store") != "hf" and not read_only
    must_write = mode == "copy" and bool(place.get("managed")) and not place.get("sources")
    sync_back = mode == "copy" and (must_write or (may_write and draw(st.booleans())))
    read_only = read_only and not must_write
    writes = sync_back if mode == "copy" else not read_only
    return Bucket(
        target,
        **{key: value for key, value in place.items() if key != "mode"},
        mode=mode,
        read_only=read_only,
        preset=preset,
        cache=draw(CACHES) if cached else CacheOptions(),
        sync_back=sync_back,
        flush_timeout=draw(SHARE) if writes else None,
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
    own = draw(st.none() | buckets(draw(st.sampled_from(["/b", "~/b c", "b/${{ run.id }}"]))))
    return [*files, *repos, *volumes, *([own] if own else [])]


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


@pytest.mark.parametrize("text", ["0\x850", "a\u2028b", "a\u2029 b", "two\nlines\x85", "\u2028x"])
def test_what_only_yaml_takes_for_ends_of_lines_stays(text: str) -> None:
    task = Task(commands=[text], env={"A": text})
    assert load(dump(task), file="a.yml", environ={}).spec == task
