"""`file_mounts:` of native files: what it comes to, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moorage.errors import InvalidInput
from moorage.specs.checks import check_task
from moorage.specs.fields.bucketcache import CONFIG, MOUNT, MOUNT_CACHED
from moorage.specs.fields.bucketkeys import BUCKET
from moorage.specs.fields.field import Table
from moorage.specs.filling import interpolate_spec
from moorage.specs.load import Loaded, load
from moorage.specs.mounts import Bucket, CacheOptions, Files
from moorage.specs.schema import schema
from moorage.specs.show import dump
from moorage.specs.task import Task

MIB = 1024**2


def read(mounts: str, head: str = "") -> Loaded:
    text = f"type: task\ncommands: [echo]\n{head}file_mounts: {mounts}"
    return load(text, file="a.yml", environ={"BUCKET": "from-env", "HOME": "/home/ann"})


def only(mounts: str) -> Any:
    loaded = read(mounts)
    assert loaded.warnings == []
    (mount,) = loaded.spec.mounts
    return mount


@pytest.mark.parametrize(
    ("written", "mount"),
    [
        ("{/a: ./x}", Files("./x", "/a")),
        ("{~/a: ~/x}", Files("~/x", "~/a")),
        ("{a: x/y.txt}", Files("x/y.txt", "a")),
        ("{/a: s3://buck}", Bucket("/a", "s3", "buck", mode="copy")),
        ("{/a: s3://buck/x/y}", Bucket("/a", "s3", "buck", "x/y", mode="copy")),
        ("{/a: 's3://${{ env.BUCKET }}/x'}", Bucket("/a", "s3", "from-env", "x", mode="copy")),
        (
            "{/a: https://acct.blob.core.windows.net/cont/x}",
            Bucket("/a", "azure", "cont", "x", account="acct", mode="copy"),
        ),
        (
            "{/a: cos://us-east/buck}",
            Bucket("/a", "ibm", "buck", region="us-east", mode="copy"),
        ),
        ("{/a: hf://datasets/ns/d/x}", Bucket("/a", "hf", "datasets/ns/d", "x", mode="copy")),
        ("{/a: file:///srv/set}", Bucket("/a", "file", "srv", "set", mode="copy")),
        ("{/a: minio://buck/x}", Bucket("/a", "minio", "buck", "x", mode="copy")),
        ("{/a: {source: s3://buck/x}}", Bucket("/a", "s3", "buck", "x")),
        (
            "{/a: {source: s3://buck, store: S3, mode: Copy}}",
            Bucket("/a", "s3", "buck", mode="copy"),
        ),
        ("{/a: {name: buck}}", Bucket("/a", bucket="buck", managed=True)),
        ("{/a: {name: buck, store: minio}}", Bucket("/a", "minio", "buck", managed=True)),
        ("{/a: {name: buck, store: gs}}", Bucket("/a", "gcs", "buck", managed=True)),
        (
            "{/a: {name: buck, path: x/y, persistent: No}}",
            Bucket("/a", bucket="buck", path="x/y", managed=True, persistent=False),
        ),
        (
            "{/a: {name: buck, source: ./x, mode: copy}}",
            Bucket("/a", bucket="buck", managed=True, sources=["./x"], mode="copy"),
        ),
        (
            "{/a: {name: buck, source: [~/x/f.txt, ~/y]}}",
            Bucket("/a", bucket="buck", managed=True, sources=["~/x/f.txt", "~/y"], listed=True),
        ),
        (
            "{/a: {name: buck, source: [./x]}}",
            Bucket("/a", bucket="buck", managed=True, sources=["./x"], listed=True),
        ),
        (
            "{/a: {name: buck, mode: COPY, path: x}}",
            Bucket("/a", bucket="buck", path="x", managed=True, mode="copy"),
        ),
        (
            "{/a: {source: s3://buck, config: {mount: {read_only: true}}}}",
            Bucket("/a", "s3", "buck", read_only=True),
        ),
        (
            "{/a: {source: s3://buck/f, mode: COPY, read_only: true}}",
            Bucket("/a", "s3", "buck", "f", mode="copy", read_only=True),
        ),
        (
            "{/a: {name: buck, mode: cached, type: model_checkpoint_ro}}",
            Bucket(
                "/a",
                bucket="buck",
                managed=True,
                mode="cached",
                preset="model-checkpoint-ro",
                read_only=True,
            ),
        ),
        (
            "{/a: {name: buck, mode: COPY, sync_back: true, flush_timeout: 2h}}",
            Bucket(
                "/a",
                bucket="buck",
                managed=True,
                mode="copy",
                sync_back=True,
                flush_timeout=7200,
            ),
        ),
        (
            "{/a: {name: buck, mode: mount_cached, durable: Background, config: {mount_cached: "
            "{transfers: 4, buffer_size: 64m, vfs_cache_max_size: 10G, vfs_cache_max_age: 1h30m, "
            "vfs_read_ahead: 64MB, vfs_read_chunk_size: 17b, vfs_read_chunk_streams: 0, "
            "vfs_write_back: 500ms, read_only: false}}}}",
            Bucket(
                "/a",
                bucket="buck",
                managed=True,
                mode="cached",
                cache=CacheOptions(4, 64 * MIB, 10240 * MIB, 5400, 64 * MIB, 17, 0, 0.5),
            ),
        ),
    ],
)
def test_what_it_comes_to(written: str, mount: Files | Bucket) -> None:
    assert only(written) == mount


@pytest.mark.parametrize(
    ("written", "seconds"), [("1M", 30 * 86400), ("1m", 60), ("2y", 63072000)]
)
def test_rclones_durations(written: str, seconds: float) -> None:
    options = f"{{mount_cached: {{vfs_cache_max_age: {written}}}}}"
    mount = only(f"{{/a: {{name: buck, mode: MOUNT_CACHED, config: {options}}}}}")
    assert mount.cache.cache_age == seconds


def test_a_plain_size_counts_kib_and_says_so() -> None:
    options = "{mount_cached: {buffer_size: 64}}"
    loaded = read(f"{{/a: {{name: buck, mode: MOUNT_CACHED, config: {options}}}}}")
    (mount,) = loaded.spec.mounts
    assert isinstance(mount, Bucket)
    assert mount.cache.buffer_size == 64 * 1024
    (warning,) = map(str, loaded.warnings)
    assert warning.endswith("a plain number counts KiB here: 64 is 64K; write 64K")


def test_what_moorage_did_not_make_it_does_not_delete() -> None:
    loaded = read("{/a: {source: s3://buck, persistent: false}}")
    (warning,) = map(str, loaded.warnings)
    assert warning == (
        "a.yml:3:19: file_mounts./a.persistent: without effect: moorage deletes only buckets "
        "that it made; remove it"
    )


def test_uploads_stand_beside_files_and_buckets_come_last() -> None:
    head = "files: ['./f:/f']\nvolumes: ['/h:/h']\nrepos: ['https://h/r:r']\n"
    loaded = read("{/a: s3://buck, /b: ./b}", head)
    assert [mount.target for mount in loaded.spec.mounts] == ["/f", "/b", "r", "/h", "/a"]
    assert [place[0] for place in loaded.places] == [
        "files[0]",
        "file_mounts./b",
        "repos[0]",
        "volumes[0]",
        "file_mounts./a",
    ]


def test_a_bucket_in_what_is_uploaded() -> None:
    loaded = read(
        "{data: s3://buck, /code/out: {name: buck}}", "workdir: .\nfiles: ['./x:/code']\n"
    )
    assert len(loaded.spec.mounts) == 4


def test_two_parts_of_one_bucket() -> None:
    assert len(read("{/a: s3://buck/x, /b: s3://buck/x}").spec.mounts) == 2


def test_a_name_is_in_one_store() -> None:
    mounts = read("{/a: {name: buck}, /b: {name: buck, store: s3}}").spec.mounts
    assert [mount.store for mount in mounts if isinstance(mount, Bucket)] == ["s3", "s3"]


def test_what_is_known_at_launch() -> None:
    text = "{'/out/${{ run.name }}': {name: buck, path: 'r/${{ run.id }}'}, /b: 's3://b12/$${{x'}"
    spec = read(text).spec
    filled = interpolate_spec(spec, {"run.name": "train", "run.id": "7"})
    assert filled.mounts == [
        Bucket("/out/train", bucket="buck", path="r/7", managed=True),
        Bucket("/b", "s3", "b12", "${{x", mode="copy"),
    ]


def test_an_empty_mapping() -> None:
    assert read("{}").spec == Task(commands=["echo"])
    assert read("").spec == Task(commands=["echo"])


def cases() -> list[tuple[str, str]]:
    text = (Path(__file__).parent / "bucket_messages.txt").read_text()
    blocks = [block for block in text.split("\n\n") if "\n=> " in block]
    return [(body, message.strip()) for body, message in (b.split("\n=> ") for b in blocks)]


@pytest.mark.parametrize(("body", "message"), cases())
def test_one_problem(body: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(f"type: task\ncommands: [echo]\n{body}", file="a.yml", environ={})
    assert "hunter2" not in str(caught.value)
    assert [str(problem) for problem in caught.value.problems] == [f"a.yml:{message}"]


def test_every_problem_at_once() -> None:
    text = "{/a/: ./x, /b: {nmae: x, mode: z}, /c: ftp://x}"
    with pytest.raises(InvalidInput) as caught:
        read(text)
    assert [problem.field for problem in caught.value.problems] == [
        "file_mounts./a/",
        "file_mounts./b.nmae",
        "file_mounts./b.mode",
        "file_mounts./c",
    ]


SEED = """
  /mybucket:
    name: my-sky-bucket
    source: ~/dataset
    store: s3
    persistent: True
    mode: MOUNT
  /datasets: ~/datasets
  /datasets-s3: s3://enriched-topical-chat
  /train-00001-of-01024: gs://cloud-tpu-test-datasets/fake_imagenet/train-00001-of-01024
  /datasets-cos: cos://us-east/bucket-name
  /datasets-storage:
    name: sky-dataset-romil
    source: ~/datasets
    store: s3
    persistent: True
    mode: COPY
  /dataset-storage-mount:
    name: sky-dataset-romil
    source: ~/datasets
    mode: MOUNT
  /huge-dataset-mount:
    source: s3://digitalcorpora
    mode: MOUNT
  /outputs-mount:
    name: my-output-bucket
    mode: MOUNT
  /datasets-multisource-storage:
    name: sky-multisource-storage2
    source: [~/mydir/myfile.txt, ~/datasets]
  /sharedfs:
    name: my-sky-sharedfs
    mode: MOUNT
"""


def test_what_skypilots_page_shows() -> None:
    loaded = read(SEED)
    assert loaded.warnings == []
    romil = Bucket("", "s3", "sky-dataset-romil", managed=True, sources=["~/datasets"])
    found = {mount.target: mount for mount in loaded.spec.mounts}
    assert found == {
        "/mybucket": Bucket(
            "/mybucket", "s3", "my-sky-bucket", managed=True, sources=["~/dataset"]
        ),
        "/datasets": Files("~/datasets", "/datasets"),
        "/datasets-s3": Bucket("/datasets-s3", "s3", "enriched-topical-chat", mode="copy"),
        "/train-00001-of-01024": Bucket(
            "/train-00001-of-01024",
            "gcs",
            "cloud-tpu-test-datasets",
            "fake_imagenet/train-00001-of-01024",
            mode="copy",
        ),
        "/datasets-cos": Bucket(
            "/datasets-cos", "ibm", "bucket-name", region="us-east", mode="copy"
        ),
        "/datasets-storage": Bucket(
            "/datasets-storage",
            romil.store,
            romil.bucket,
            managed=True,
            mode="copy",
            sources=romil.sources,
        ),
        "/dataset-storage-mount": Bucket(
            "/dataset-storage-mount",
            romil.store,
            romil.bucket,
            managed=True,
            sources=romil.sources,
        ),
        "/huge-dataset-mount": Bucket("/huge-dataset-mount", "s3", "digitalcorpora"),
        "/outputs-mount": Bucket("/outputs-mount", bucket="my-output-bucket", managed=True),
        "/datasets-multisource-storage": Bucket(
            "/datasets-multisource-storage",
            bucket="sky-multisource-storage2",
            managed=True,
            sources=["~/mydir/myfile.txt", "~/datasets"],
            listed=True,
        ),
        "/sharedfs": Bucket("/sharedfs", bucket="my-sky-sharedfs", managed=True),
    }


def test_editors_accept_it_too() -> None:
    document = yaml.safe_load(f"type: task\ncommands: [echo]\nfile_mounts:{SEED}")
    jsonschema.validate(document, schema("task"))
    document["file_mounts"]["/mybucket"]["nmae"] = "x"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema("task"))


WORDS = """
    s3 S3 gs minio hf file volume s4 true false no MOUNT copy mount_cached DATASET_RO fsync
    s3://buck s3://buck/x/ hf://a/b file:///a/b cos://us-east/buck az://cont
    minio://b/${{run.id}} ./x x/ ~/y .. $A ${{env.HOME}} ${{run.name}} buck b
    1h 0 -1 64M 64 10q /a a/../b é://x
"""
WORD = st.sampled_from(WORDS.split())
LEAVES = WORD | st.none() | st.lists(WORD, max_size=2) | st.text(max_size=5)


def some(table: Table, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A mapping of some of the keys of a table, and at times of one that it does not have."""
    names = st.sampled_from([*(row.name for row in table), "_x", "y"])
    return st.dictionaries(names, values, max_size=5)


CONFIGS = some(CONFIG, LEAVES | some(MOUNT, LEAVES) | some(MOUNT_CACHED, LEAVES))
TARGETS = st.sampled_from(["/a", "/a/b", "~/c", "d", "e/", "/f/${{ run.id }}", "s3://b", "/proc"])


# The first draw of texts makes a table of all characters, which takes seconds.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(TARGETS, LEAVES | some(BUCKET, LEAVES | CONFIGS), max_size=3))
def test_whatever_is_written(mounts: Any) -> None:
    text = yaml.safe_dump({"type": "task", "commands": ["a"], "file_mounts": mounts})
    try:
        task = load(text, file="a.yml", environ={"HOME": "/h"}).spec
    except InvalidInput as error:
        problems = error.problems
    else:
        problems = ()
    assert all(problem.line for problem in problems)
    if problems:
        return
    assert check_task(task) == []
    assert load(dump(task), file="b.yml", environ={}).spec == task
