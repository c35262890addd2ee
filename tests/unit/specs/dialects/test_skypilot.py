"""SkyPilot's task files: what each field comes to, and what is said of those that are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from moorage.errors import InvalidInput
from moorage.specs.load import load
from moorage.specs.mounts import Bucket, Files, HostPath, Repo
from moorage.specs.ports import Port
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.show import dump
from moorage.specs.task import Task

GB = 1024**3
ENVIRON = {"HOME": "/home/ann", "TOKEN": "hunter2"}


def read(text: str, **options: Any) -> Any:
    return load(text, **({"file": "sky.yaml", "environ": ENVIRON} | options))


def spec(body: str, **options: Any) -> Task:
    return read(body if "run:" in body else f"{body}\nrun: echo", **options).spec


def errors(text: str, **options: Any) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        read(text, **options)
    assert "hunter2" not in str(caught.value)
    return [str(problem) for problem in caught.value.problems]


def test_the_least_file() -> None:
    loaded = read("run: echo hi\n")
    assert loaded.dialect == "skypilot"
    assert loaded.spec == Task(commands=["echo hi"], shell="bash", compat=["skypilot"])


def test_a_file_with_commands_is_none() -> None:
    (found,) = errors("name: ab\ncommands: [echo]\n")
    assert "the field 'type' is missing" in found


def test_setup_runs_first_in_a_shell_of_its_own() -> None:
    task = spec("setup: |\n  cd /tmp\n  pip list\nrun: |\n  pwd\n")
    assert task.commands == ["( # setup\ncd /tmp\npip list\n)", "pwd\n"]


def test_what_looks_like_our_references_is_text() -> None:
    task = spec("envs: {A: '${{ env.TOKEN }}'}\nrun: echo ${{ run.name }} $A ${A}\n")
    assert task.commands == ["echo $${{ run.name }} $A ${A}"]
    assert task.env == {"A": "$${{ env.TOKEN }}"}


def test_envs_take_values_from_the_command_line() -> None:
    task = spec("envs: {A: 1, B: , C: x}", overrides=["B=two", "C=three"])
    assert task.env == {"A": "1", "B": "two", "C": "three"}
    assert spec("envs: {TOKEN: }", overrides=["TOKEN"]).env == {"TOKEN": "hunter2"}


def test_secrets_are_not_shown() -> None:
    loaded = read("secrets: {KEY: abc}\nrun: echo")
    assert loaded.spec.env == {"KEY": "abc"}
    assert loaded.inherited == {"KEY"}


def test_variables_are_filled_in_in_paths_and_not_in_commands() -> None:
    task = spec(
        "envs: {USERDIR: ann, N: 3}\nworkdir: ./${USERDIR}\nnum_nodes: $N\n"
        "volumes: {'/d/$USERDIR': {host_path: '/data/${USERDIR}', mode: ro}}\n"
        "run: echo ${USERDIR}\n"
    )
    assert task.nodes == 3
    assert task.commands == ["echo ${USERDIR}"]
    assert task.mounts == [
        Files("./ann", "."),
        HostPath("/data/ann", "/d/ann", read_only=True),
    ]


def test_a_repository_as_working_directory() -> None:
    task = spec("workdir: {url: 'https://example.org/a.git', ref: main}")
    assert task.mounts == [Repo(target=".", url="https://example.org/a.git", branch="main")]


def test_files_go_where_they_would_go_there() -> None:
    task = spec(
        "file_mounts:\n  ~/sky_workdir/conf: ./conf\n  data: ./data\n  /abs: ./x\n  ~/h: ./h\n"
    )
    assert [(m.source, m.target) for m in task.mounts if isinstance(m, Files)] == [
        ("./conf", "conf"),
        ("./data", "data"),
        ("./x", "/abs"),
        ("./h", "~/h"),
    ]


def test_a_bucket() -> None:
    task = spec(
        "envs: {B: mine}\nfile_mounts:\n  /ckpt: {name: '${B}', store: s3, mode: MOUNT_CACHED}\n"
    )
    assert task.mounts == [Bucket("/ckpt", store="s3", bucket="mine", mode="cached", managed=True)]


@pytest.mark.parametrize(
    ("written", "resources"),
    [
        ("{cpus: 4}", Resources(cpu=Cpu(Range(4, 4)))),
        ("{cpus: 4+}", Resources(cpu=Cpu(Range(4)))),
        ("{memory: 16+}", Resources(memory=Range(16 * GB))),
        ("{memory: 512MB}", Resources(memory=Range(512 * 1024**2))),
        ("{accelerators: A100}", Resources(gpu=Gpu(Range(1, 1), name=["A100"]))),
        ("{accelerators: 'H100:8'}", Resources(gpu=Gpu(Range(8, 8), name=["H100"]))),
        ("{accelerators: {H100: 2}}", Resources(gpu=Gpu(Range(2, 2), name=["H100"]))),
        (
            "{accelerators: ['A10:1', 'L4:1']}",
            Resources(gpu=Gpu(Range(1, 1), name=["A10", "L4"])),
        ),
        (
            "{accelerators: 'A100-80GB:4'}",
            Resources(gpu=Gpu(Range(4, 4), name=["A100"], memory=Range(72 * GB))),
        ),
        ("{disk_size: 10}", Resources(disk=Range(10 * GB))),
        ("{use_spot: false, cloud: '*'}", Resources()),
    ],
)
def test_resources(written: str, resources: Resources) -> None:
    loaded = read(f"resources: {written}\nrun: echo")
    assert loaded.spec.resources == resources
    assert loaded.warnings == []


def test_other_things_under_resources() -> None:
    task = spec(
        "resources: {image_id: 'docker:ubuntu:22.04', ports: [8080, 90-91], infra: ssh/lab}"
    )
    assert task.image == "ubuntu:22.04"
    assert task.ports == [Port(8080, 8080), Port(90, 90), Port(91, 91)]
    assert task.fleets == ["lab"]


def test_a_choice_of_cloud_is_said_to_have_no_effect() -> None:
    loaded = read("resources: {cloud: aws, use_spot: true}\nrun: echo")
    assert sorted(str(warning) for warning in loaded.warnings) == [
        "sky.yaml:1:20: resources.cloud: has no effect: jobs run on the nodes of your fleets; "
        "name a fleet with infra: ssh/FLEET, or remove it",
        "sky.yaml:1:35: resources.use_spot: has no effect: jobs run on the nodes of your fleets; "
        "name a fleet with infra: ssh/FLEET, or remove it",
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("envs: {B: }", "envs.B: the variable B has no value; pass -e B=..., or -e B to take it"),
        ("workdir: ./${X}", "workdir: the variable X is not set; add it under envs, or pass"),
        ("envs: {USER1: a}\nworkdir: $USER2", "USER2 is not set; known are USER1; add it"),
        ("workdir: ${X:-y}", "workdir: '${X:-y}' is not a variable; only ${NAME} is understood"),
        ("file_mounts: {~/sky_workdir: ./x}", "~/sky_workdir is the working directory; write"),
        ("service: {port: 1}", "service: this version does not run services yet; remove it"),
        ("run_: x", "there is no field 'run_'; did you mean 'run'?"),
        ("resources: {gpus: 1}", "resources.gpus: there is no field 'gpus'"),
        ("resources: {cpus: many}", "resources.cpus: 'many' is not a number of CPUs"),
        (
            "resources: {memory: 4x}",
            "resources.memory: '4x' is not an amount of memory; write the",
        ),
        ("resources: {accelerators: 'A:b'}", "'A:b' is not a whole number of GPUs"),
        ("resources: {accelerators: {A: 1, B: 2}}", "choices with different counts"),
        ("resources: {image_id: ami-1}", "'ami-1' is an image of a cloud's machines"),
        ("resources: {any_of: [{cloud: aws}]}", "this version takes one set of resources"),
        ("resources: {ports: 70000}", "'70000' is not a port or a range of ports"),
        ("volumes: {/a: my-volume}", "volumes./a: this version has no volumes of clouds"),
        ("num_nodes: 0", "num_nodes: '0' is not a whole number from 1 to 10000"),
    ],
)
def test_messages(body: str, message: str) -> None:
    (found,) = errors(f"{body}\nrun: echo")
    assert message in found
    assert found.startswith("sky.yaml:")


def test_nothing_to_run() -> None:
    (found,) = errors("envs: {A: 1}\n")
    assert found == "sky.yaml:1:1: there is nothing to run; add `run: |` with commands"


EVERY_STORAGE = """\
name: storage-demo
resources: {cloud: aws}
file_mounts:
  /plain: ~/datasets
  /from-s3: s3://public-chat
  /one-object-00001-of-01024: gs://tpu-tests/imagenet/train-00001-of-01024
  /from-cos: cos://us-east/images
  /kept: {name: kept-ann, source: ~/datasets, store: s3, persistent: True, mode: COPY}
  /again: {name: kept-ann, source: ~/datasets, mode: MOUNT}
  /huge: {source: 's3://corpora', mode: MOUNT}
  /outputs: {name: outputs-ann, mode: MOUNT}
  /several: {name: several-ann, source: [~/mydir/file.txt, ~/datasets]}
run: |
  pwd
  ls -la /
"""


def test_every_use_of_storage() -> None:
    copy, kept = {"mode": "copy"}, {"bucket": "kept-ann", "managed": True, "store": "s3"}
    home = ["~/datasets"]
    assert spec(EVERY_STORAGE).mounts == [
        Files("~/datasets", "/plain"),
        Bucket("/from-s3", store="s3", bucket="public-chat", **copy),
        Bucket(
            "/one-object-00001-of-01024",
            store="gcs",
            bucket="tpu-tests",
            path="imagenet/train-00001-of-01024",
            **copy,
        ),
        Bucket("/from-cos", store="ibm", bucket="images", region="us-east", **copy),
        Bucket("/kept", sources=home, **copy, **kept),
        Bucket("/again", sources=home, **kept),
        Bucket("/huge", store="s3", bucket="corpora"),
        Bucket("/outputs", bucket="outputs-ann", managed=True),
        Bucket(
            "/several",
            bucket="several-ann",
            managed=True,
            sources=["~/mydir/file.txt", "~/datasets"],
            listed=True,
        ),
    ]


def test_the_native_file_that_does_the_same_reads_back_to_it() -> None:
    task = spec(EVERY_STORAGE)
    again = load(dump(task), file="native.yml", environ=ENVIRON)
    assert (again.dialect, again.spec) == ("native", task)
