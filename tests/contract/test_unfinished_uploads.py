"""Uploads in parts that do not end: SeaweedFS and moto keep their parts, as Amazon does. moto says
of each that it began in 2010."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

import pytest

from moorage.cli.storage_cleanup import unfinished
from moorage.data.objects.bucket import PART, Bucket, open_bucket
from moorage.data.objects.errors import StoreProblem
from moorage.data.objects.leftovers import leftovers
from moorage.data.objects.unfinished import Uploads
from moorage.data.transfer.engine import transfer
from moorage.data.transfer.places import Local, Remote
from moorage.specs.stores.record import Access
from testbed.stores import StoreServer

KEY = "d/ü b+c&<%20"


@pytest.fixture(params=["seaweed", "moto"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    server: StoreServer = request.getfixturevalue(request.param)
    return open_bucket(server.access, server.make_bucket(), patience=5)


def uploads_of(bucket: Bucket) -> Uploads:
    return Uploads(bucket._reads, bucket.access, bucket.name, bucket.shown)


def test_an_upload_that_is_given_up_leaves_nothing(seaweed: StoreServer) -> None:
    bucket = open_bucket(seaweed.access, seaweed.make_bucket(), patience=5)
    uploads = uploads_of(bucket)
    half, go_on = threading.Event(), threading.Event()
    failed: list[str] = []

    def content() -> Iterator[bytes]:
        yield os.urandom(3 * PART)
        half.set()
        assert go_on.wait(60)
        yield os.urandom(PART)

    def send() -> None:
        try:
            bucket.put_stream(KEY, content(), 4 * PART)
        except StoreProblem as error:
            failed.append(error.reason)

    thread = threading.Thread(target=send)
    thread.start()
    assert half.wait(60)
    assert [one.key for one in uploads.listed("d/")] == [KEY]
    assert uploads.listed("other") == []
    bucket.sending.give_up()
    assert uploads.listed() == []
    go_on.set()
    thread.join()
    assert failed
    assert uploads.listed() == []


def test_a_file_that_goes_away_meanwhile_leaves_nothing(bucket: Bucket) -> None:
    def content() -> Iterator[bytes]:
        yield os.urandom(3 * PART)
        raise FileNotFoundError("gone")

    with pytest.raises((OSError, StoreProblem)):
        bucket.put_stream(KEY, content(), 4 * PART)
    assert uploads_of(bucket).listed() == []


def test_of_two_for_one_key_none_is_removed(bucket: Bucket) -> None:
    """One may be somebody else's, who is writing it."""
    uploads = uploads_of(bucket)
    for _ in range(2):
        uploads._asked("POST", KEY, {"uploads": ""})
    first, second = uploads.listed()
    assert not uploads.abort_own(KEY, 0)
    uploads.abort(first)
    assert uploads.abort_own(KEY, second.began - 1)
    uploads.abort(second)  # once more is no error
    assert uploads.listed() == []


def test_what_they_take_is_counted(bucket: Bucket) -> None:
    uploads = uploads_of(bucket)
    assert leftovers(uploads) is None
    number = uploads._asked("POST", KEY, {"uploads": ""})[0]
    uploads._asked("POST", "other", {"uploads": ""})
    put_part(bucket, KEY, number.partition("<UploadId>")[2].partition("<")[0])
    found = leftovers(uploads)
    assert found is not None
    assert (found.uploads, found.bytes) == (2, 5 * 2**20)
    assert leftovers(uploads, "oth") is None
    assert leftovers(uploads, "d") is not None
    said = unfinished(found, "lab://b", found.oldest + 86_401)
    assert said == (
        "2 unfinished uploads, 5.0 MB, the oldest begun 1d ago; moorage storage cleanup lab://b"
    )


def put_part(bucket: Bucket, key: str, number: str) -> None:
    """Five MiB of it arrive."""
    words = {"uploadId": number, "partNumber": "1"}
    host = bucket.access.endpoint.removeprefix("http://")
    path = f"/{bucket.name}/{quote(key)}"
    query = uploads_of(bucket)._signed("PUT", host, path, words, "us-east-1")
    connection = HTTPConnection(host)
    connection.request("PUT", f"{path}?{query}", body=bytes(5 * 2**20))
    assert connection.getresponse().status == 200
    connection.close()


def test_stores_of_another_kind_are_not_asked(tmp_path: Any) -> None:
    (tmp_path / "b").mkdir()
    bucket = open_bucket(Access("file", str(tmp_path)), "b")
    assert not uploads_of(bucket).kept
    assert not uploads_of(bucket).known
    assert leftovers(uploads_of(bucket)) is None
    (tmp_path / "in").write_bytes(bytes(PART + 1))
    transfer(Local(str(tmp_path / "in")), Remote(bucket, "out")).require_all()
    bucket.sending.give_up()
