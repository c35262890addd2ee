"""What a bucket of a spec must be like that no file loader has seen."""

from __future__ import annotations

import pytest

from moorage.specs.buckets import bucket_problems, faults, uri, writes
from moorage.specs.checks import check_task
from moorage.specs.mounts import Bucket, CacheOptions, Files
from moorage.specs.task import Task

GOOD = Bucket("/a", "s3", "buck")


@pytest.mark.parametrize(
    ("bucket", "key", "message"),
    [
        (Bucket("/a", "", "buck"), "store", "nothing says in which store the bucket is"),
        (Bucket("/a", "My", "buck"), "store", "there is no store 'My'"),
        (Bucket("/a", "s3"), "source", "the bucket's name is missing"),
        (Bucket("/a", managed=True), "name", "the bucket's name is missing"),
        (Bucket("/a", "s3", "buck", "/x"), "path", "the path has an empty part, '.' or '..'"),
        (
            Bucket("/a", "s3", "buck", "x/"),
            "path",
            "the path begins or ends with a slash",
        ),
        (Bucket("/a", "s3", "buck", "x?sig=y"), "source", "the address contains credentials"),
        (Bucket("/a", "hf", "ns/x"), "mode", "Hugging Face can only be copied"),
        (
            Bucket("/a", "s3", "buck", cache=CacheOptions(transfers=1)),
            "config.mount_cached",
            "config.mount_cached is for MOUNT_CACHED, and this is MOUNT",
        ),
        (
            Bucket("/a", "s3", "buck", mode="cached", cache=CacheOptions(transfers=0)),
            "config.mount_cached",
            "transfers is out of range",
        ),
        (
            Bucket("/a", "s3", "buck", mode="cached", cache=CacheOptions(write_back=-1)),
            "config.mount_cached",
            "write_back is out of range",
        ),
        (
            Bucket("/a", "s3", "buck", sources=["x"]),
            "source",
            "local files can only go into a bucket with a name",
        ),
        (
            Bucket("/a", bucket="buck", managed=True, sources=["x\0"]),
            "source",
            "the text contains a NUL character",
        ),
    ],
)
def test_what_is_wrong(bucket: Bucket, key: str, message: str) -> None:
    assert [(fault.key, fault.message) for fault in faults(bucket)] == [(key, message)]


def test_a_posted_spec() -> None:
    task = Task(
        commands=["x"],
        mounts=[Files("a", "."), GOOD, Bucket("/b", "s3", "B"), Bucket("/a/b", "s3", "buck")],
    )
    assert [str(problem) for problem in check_task(task)] == [
        "mounts[2].source: 'B' cannot be the name of a bucket: it must have 3 to 63 characters"
    ]
    task = Task(commands=["x"], mounts=[GOOD, Bucket("/a/b", "s3", "buck")])
    assert [str(problem) for problem in check_task(task)] == [
        "mounts: the buckets at /a and /a/b lie in each other"
    ]
    task = Task(commands=["x"], mounts=[Bucket("/proc", "s3", "buck")])
    (problem,) = check_task(task)
    assert problem.field == "file_mounts"


def test_two_mounts_of_a_storage() -> None:
    one = Bucket("/a", "s3", "buck", managed=True)
    two = Bucket("/b", "", "buck", managed=True)
    assert [problem.field for problem in bucket_problems([one, Files("x", "y"), two])] == [
        "mounts[2].store"
    ]
    assert list(bucket_problems([one, Bucket("/b", "s3", "buck", managed=True)])) == []


@pytest.mark.parametrize(
    ("bucket", "text"),
    [
        (GOOD, "s3://buck"),
        (Bucket("/a", "gcs", "buck", "x/y"), "gs://buck/x/y"),
        (Bucket("/a", "lab", "buck", "x"), "lab://buck/x"),
        (Bucket("/a", "azure", "cont", account="acct"), "https://acct.blob.core.windows.net/cont"),
    ],
)
def test_addresses(bucket: Bucket, text: str) -> None:
    assert uri(bucket) == text


@pytest.mark.parametrize(
    ("bucket", "does"),
    [
        (GOOD, True),
        (Bucket("/a", "s3", "buck", read_only=True), False),
        (Bucket("/a", "s3", "buck", mode="copy"), False),
        (Bucket("/a", "s3", "buck", mode="copy", sync_back=True), True),
    ],
)
def test_whether_it_is_written(bucket: Bucket, does: bool) -> None:
    assert writes(bucket) is does
