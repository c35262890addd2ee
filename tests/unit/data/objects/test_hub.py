"""Repositories of Hugging Face, against the stand-in of `testbed/hub.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.data.objects import hub as hubs
from moorage.data.objects.bucket import Bucket, open_bucket
from moorage.data.objects.errors import StoreProblem
from moorage.data.transfer.compare import compare
from moorage.data.transfer.engine import carry_out
from moorage.data.transfer.places import Local, Remote
from moorage.errors import MoorageError
from moorage.specs.stores.record import Access
from testbed.hub import LARGE, TOKEN, Hub, running

WEIGHTS = os.urandom(3 * LARGE)
FILES = {
    "config.json": b"{}",
    "weights.bin": WEIGHTS,
    "sub/a b.txt": b"spaces",
    "sub/deep/ü.txt": b"",
    "sub2/x": b"x",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as started:
        started.push("lab/model", FILES)
        yield started


def opened(hub: Hub, name: str = "lab/model", token: str = "", patience: float = 0.5) -> Bucket:
    secrets = {"token": token} if token else {}
    return open_bucket(Access("hf", endpoint=hub.url, secrets=secrets), name, patience=patience)


def keys(bucket: Bucket, prefix: str = "") -> dict[str, int]:
    return {one.key: one.size for page in bucket.list(prefix) for one in page}


def test_a_repository_is_listed_in_pages(hub: Hub) -> None:
    bucket = opened(hub)
    assert bucket.shown == "hf://lab/model"
    assert keys(bucket) == {key: len(content) for key, content in FILES.items()}
    assert len(list(bucket.list())) == 2  # of three pages, one has directories only
    assert keys(bucket, "sub") == {"sub/a b.txt": 6, "sub/deep/ü.txt": 0}
    assert keys(bucket, "nothing") == {}
    assert keys(bucket, "config.json") == {}


@pytest.mark.parametrize("kind", ["datasets", "spaces"])
def test_datasets_and_spaces_and_revisions(hub: Hub, kind: str) -> None:
    hub.push(f"{kind}/lab/set", {"old": b"1"}, revision="refs/pr/1")
    hub.push(f"{kind}/lab/set", {"new": b"2"})
    assert keys(opened(hub, f"{kind}/lab/set")) == {"new": 1}
    assert keys(opened(hub, f"{kind}/lab/set@refs%2Fpr%2F1")) == {"old": 1}


def test_one_file_is_as_in_the_listing(hub: Hub) -> None:
    bucket = opened(hub)
    listed = {one.key: one for page in bucket.list() for one in page}
    for key in FILES:
        assert bucket.head(key) == listed[key]
    assert len({one.modified for one in listed.values()}) > 1
    with pytest.raises(StoreProblem, match="model/nothing: there is no such file") as caught:
        bucket.head("nothing")
    assert caught.value.reason == "no-object"


def test_the_token_goes_to_the_site_only(hub: Hub) -> None:
    hub.push("lab/private", FILES, private=True)
    bucket = opened(hub, "lab/private", TOKEN)
    found = bucket.head("weights.bin")
    assert b"".join(bucket.pieces("weights.bin", 5, LARGE, found.etag)) == WEIGHTS[5:LARGE]
    assert bucket.get("config.json") == b"{}"
    assert hub.sent == [(hub.sent[0][0], False)]
    assert all(token for _, _, token in hub.seen)


def test_what_is_pushed_meanwhile_mixes_nothing(hub: Hub) -> None:
    bucket = opened(hub)
    [listed] = [one for page in bucket.list() for one in page if one.key == "config.json"]
    hub.push("lab/model", {"config.json": b"other"})
    content, found = bucket.buffer("config.json", listed.etag)
    assert (bytes(content), found) == (b"{}", listed)
    assert keys(opened(hub)) == {"config.json": 5}


def test_it_is_copied_once_and_then_what_has_changed(hub: Hub, tmp_path: Path) -> None:
    target = Local(str(tmp_path / "here"))
    report = carry_out(compare(Remote(opened(hub)), target))
    report.require_all()
    assert {key: (tmp_path / "here" / key).read_bytes() for key in FILES} == FILES
    again = compare(Remote(opened(hub)), target)
    assert (again.moves, again.unchanged) == ([], len(FILES))
    hub.push("lab/model", {**FILES, "config.json": b"[]"})
    later = compare(Remote(opened(hub)), target)
    assert [entry.name for entry in later.moves] == ["config.json"]


@pytest.mark.parametrize(
    ("name", "token", "reason", "told"),
    [
        ("lab/gone", "", "denied", "no such repository, or it is private; check its name"),
        ("lab/gone", TOKEN, "denied", "no such repository, or it is private"),
        ("lab/model@v9", "", "not-possible", "no such revision; write a branch, tag or commit"),
        ("lab/secret", "", "denied", "or it is private; check its name (hf://datasets/... for a"),
        ("lab/model", "hf_wrong", "denied", "set HF_TOKEN where the server or the node runs"),
    ],
)
def test_what_cannot_be_opened_says_why(
    hub: Hub, name: str, token: str, reason: str, told: str
) -> None:
    hub.push("lab/secret", FILES, private=True)
    with pytest.raises(StoreProblem) as caught:
        opened(hub, name, token)
    assert caught.value.reason == reason
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert "hf_wrong" not in str(caught.value)


def test_a_gated_repository_says_so(hub: Hub) -> None:
    hub.push("lab/gated", FILES, gated=True)
    with pytest.raises(StoreProblem, match="gated, and this account may not read it; accept its"):
        keys(opened(hub, "lab/gated"))
    assert keys(opened(hub, "lab/gated", TOKEN))


def test_a_site_that_stumbles_is_asked_again(hub: Hub) -> None:
    hub.failing = 1
    assert keys(opened(hub, patience=10))
    hub.failing = 9
    with pytest.raises(StoreProblem, match="the site says 503") as caught:
        opened(hub, patience=0.1)
    assert caught.value.reason == "unreachable"


def test_nothing_is_written_and_no_address_is_trusted(hub: Hub) -> None:
    bucket = opened(hub)
    for call in (lambda: bucket.put("a", b""), lambda: bucket.delete(["a"])):
        with pytest.raises(StoreProblem, match="can only be read here"):
            call()
    with pytest.raises(StoreProblem, match="does not answer"):
        open_bucket(Access("hf", endpoint="http://127.0.0.1:9"), "lab/model", patience=0.1)
    with pytest.raises(MoorageError, match="its buckets speak S3"):
        opened(hub, "buckets/lab/b")


def test_the_site_is_checked(hub: Hub) -> None:
    hubs.check(Access("hf", endpoint=hub.url))
    hubs.check(Access("hf", endpoint=hub.url, secrets={"token": TOKEN}))
    with pytest.raises(StoreProblem, match="the token is not valid; set HF_TOKEN"):
        hubs.check(Access("hf", endpoint=hub.url, secrets={"token": "hf_wrong"}))
