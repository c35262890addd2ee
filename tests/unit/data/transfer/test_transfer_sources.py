from __future__ import annotations

from pathlib import Path

import pytest

from moorage.data.objects.bucket import Bucket, open_bucket
from moorage.data.transfer.places import Progress
from moorage.data.transfer.sources import compare_sources, places, send
from moorage.errors import InvalidInput, Unavailable
from moorage.specs.mounts import Bucket as Mount
from moorage.specs.stores.record import Access


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    (tmp_path / "store" / "bucket").mkdir(parents=True)
    return open_bucket(Access("file", str(tmp_path / "store")), "bucket")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in ("set/a", "set/sub/b", "more/c", "file.txt"):
        path = tmp_path / "base" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "base"


def keys(bucket: Bucket) -> set[str]:
    return {one.key for page in bucket.list() for one in page}


def test_the_content_of_one_directory_lands_at_the_path(bucket: Bucket, base: Path) -> None:
    mount = Mount("/data", bucket="bucket", path="in/here", sources=["./set"])
    sending = compare_sources(mount, base, bucket)
    assert (sending.files, sending.size, sending.unchanged) == (2, 14, 0)
    send([sending])
    assert keys(bucket) == {"in/here/a", "in/here/sub/b"}
    again = compare_sources(mount, base, bucket)
    assert again.files + again.unchanged == 2


def test_a_list_lands_below_its_names(bucket: Bucket, base: Path) -> None:
    mount = Mount("/data", bucket="bucket", sources=["file.txt", "set", "more/"], listed=True)
    told: list[Progress] = []
    send([compare_sources(mount, base, bucket)], told.append)
    assert keys(bucket) == {"file.txt", "set/a", "set/sub/b", "more/c"}
    assert told[-1].files == told[-1].files_total == 4
    assert [one.bytes for one in told] == sorted(one.bytes for one in told)


def test_two_of_one_name(base: Path) -> None:
    mount = Mount("/data", bucket="bucket", sources=["set", "../base/set"], listed=True)
    with pytest.raises(InvalidInput, match="two sources are called set"):
        places(mount, base)


def test_links_are_said(bucket: Bucket, base: Path) -> None:
    (base / "set/link").symlink_to("a")
    sending = compare_sources(Mount("/d", bucket="bucket", sources=["set"]), base, bucket)
    assert sending.notes == [f"{base}/set: 1 symbolic link is not uploaded into a bucket"]


def test_a_bucket_that_is_to_be_made_lacks_everything(tmp_path: Path, base: Path) -> None:
    from moorage.data.objects.errors import StoreProblem

    class Missing(Bucket):
        def check(self) -> None:
            raise StoreProblem("no-bucket", "x", "there is no such bucket")

    bucket = open_bucket(Access("file", str(tmp_path)), "base")
    bucket.__class__ = Missing
    mount = Mount("/d", bucket="new", managed=True, sources=["set"])
    sending = compare_sources(mount, base, bucket)
    assert sending.new_bucket
    assert sending.files == 2


def test_what_cannot_be_sent_fails_with_its_name(bucket: Bucket, base: Path) -> None:
    sending = compare_sources(Mount("/d", bucket="bucket", sources=["set"]), base, bucket)
    (base / "set/a").unlink()
    with pytest.raises(Unavailable, match="set/a: no such file"):
        send([sending])
