from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moorage.data.objects import bucket as bucket_module
from moorage.data.objects.bucket import Bucket, open_bucket
from moorage.data.objects.errors import StoreProblem
from moorage.data.stopping import Stopper, current
from moorage.data.transfer import download, partfile
from moorage.data.transfer.compare import Options, compare
from moorage.data.transfer.engine import carry_out, transfer
from moorage.data.transfer.places import Local, Progress, Remote
from moorage.data.transfer.pool import Stopped
from moorage.errors import InvalidInput, NotFound, Unavailable
from moorage.specs.stores.record import Access


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """A directory as a store: no server, and the same code."""
    (tmp_path / "store" / "bucket").mkdir(parents=True)
    return open_bucket(Access("file", str(tmp_path / "store")), "bucket")


PART = 256 * 1024


@pytest.fixture
def large(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An object of six parts, which are smaller here than they are."""
    monkeypatch.setattr(partfile, "PART", PART)
    monkeypatch.setattr(download, "WHOLE", PART)
    content = os.urandom(5 * PART + 3)
    bucket.put("large", content)
    return content


def grow(root: Path, **files: str) -> Local:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return Local(str(root))


def keys(bucket: Bucket) -> set[str]:
    return {one.key for page in bucket.list() for one in page}


def test_an_interrupted_download_goes_on(
    bucket: Bucket, large: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = Bucket.pieces

    def breaking(self: Bucket, key: str, start: int, end: int, etag: str = "") -> Iterator[bytes]:
        asked.append(start)
        if len(asked) == 4:
            raise StoreProblem("unreachable", "the store", "it is away")
        return real(self, key, start, end, etag)

    monkeypatch.setattr(Bucket, "pieces", breaking)
    out = Local(str(tmp_path / "out"))
    with pytest.raises(StoreProblem, match="it is away"):
        transfer(Remote(bucket), out, Options(threads=1))
    assert not (tmp_path / "out/large").exists()
    asked.clear()
    told: list[Progress] = []
    report = transfer(Remote(bucket), out, Options(threads=1), told.append)
    assert (report.files, report.problems) == (1, [])
    assert asked == [3 * PART, 4 * PART, 5 * PART]
    assert told[0].bytes == 3 * PART
    assert told[-1] == Progress(1, 1, len(large), len(large))
    assert (tmp_path / "out/large").read_bytes() == large
    assert os.listdir(tmp_path / "out") == ["large"]


def test_an_object_that_changes_meanwhile_is_not_mixed(
    bucket: Bucket, large: bytes, tmp_path: Path
) -> None:
    plan = compare(Remote(bucket), Local(str(tmp_path / "out")))
    bucket.put("large", large[::-1])
    os.utime(tmp_path / "store/bucket/large", (0, 0))
    report = carry_out(plan)
    assert report.files == 0
    assert "changed" in str(report.problems[0])
    transfer(Remote(bucket), Local(str(tmp_path / "out"))).require_all()
    assert (tmp_path / "out/large").read_bytes() == large[::-1]


def test_one_that_changes_twice_in_a_second_is_not_mixed(
    bucket: Bucket, large: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, real = tmp_path / "store/bucket/large", Bucket.pieces
    plan = compare(Remote(bucket), Local(str(tmp_path / "out")), Options(threads=1))
    when = stored.stat().st_mtime_ns

    def changing(self: Bucket, key: str, start: int, end: int, etag: str = "") -> Iterator[bytes]:
        if start == 2 * PART and etag == plan.moves[0].etag:
            bucket.put("large", large[::-1])
            os.utime(stored, ns=(when, when))
        return real(self, key, start, end, etag)

    monkeypatch.setattr(Bucket, "pieces", changing)
    assert "changed" in str(carry_out(plan).problems[0])
    assert os.listdir(tmp_path / "out") == []


def test_a_hard_link_keeps_its_content(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("a", b"old")
    out = Local(str(tmp_path / "out"))
    transfer(Remote(bucket), out)
    os.link(tmp_path / "out/a", tmp_path / "kept")
    bucket.put("a", b"newer")
    assert transfer(Remote(bucket), out).files == 1
    assert (tmp_path / "kept").read_text() == "old"
    assert (tmp_path / "out/a").read_text() == "newer"


def test_a_file_that_changes_once_is_sent_again(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = grow(tmp_path / "in", a="1" * (bucket_module.PART + 1), b="small")
    real, sent = Bucket.put_file, []

    def changing(
        self: Bucket, key: str, path: str, size: int, arrived: Callable[[int], None]
    ) -> str:
        sent.append(key)
        etag = real(self, key, path, size, arrived)
        if len(sent) == 1:
            Path(path).write_text("2" * (bucket_module.PART + 2))
        return etag

    monkeypatch.setattr(Bucket, "put_file", changing)
    told: list[Progress] = []
    transfer(source, Remote(bucket), tell=told.append).require_all()
    assert sent == ["a", "a"]
    assert told[-1].bytes == told[-1].bytes_total, "what was sent in vain is counted"
    assert bucket.head("a").size == bucket_module.PART + 2


def test_a_file_that_keeps_changing_is_named_and_the_others_sent(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = grow(tmp_path / "in", a="1" * (bucket_module.PART + 1), b="small")
    real = Bucket.put_file

    def changing(
        self: Bucket, key: str, path: str, size: int, arrived: Callable[[int], None]
    ) -> str:
        etag = real(self, key, path, size, arrived)
        with open(path, "a") as file:
            file.write("more")
        return etag

    monkeypatch.setattr(Bucket, "put_file", changing)
    report = transfer(source, Remote(bucket), Options(delete=True))
    [problem] = report.problems
    assert (
        str(problem) == f"{source.path}/a: it changes while it is sent; let it rest, and try again"
    )
    assert "b" in keys(bucket)
    with pytest.raises(Unavailable, match="it changes while it is sent"):
        report.require_all()


def test_a_file_that_is_gone_is_named(bucket: Bucket, tmp_path: Path) -> None:
    source = grow(tmp_path / "in", a="1", b="2")
    plan = compare(source, Remote(bucket))
    (tmp_path / "in/a").unlink()
    report = carry_out(plan)
    assert [problem.file for problem in report.problems] == [f"{source.path}/a"]
    assert keys(bucket) == {"b"}


def test_links_and_pipes_are_left_out_and_counted(bucket: Bucket, tmp_path: Path) -> None:
    source = grow(tmp_path / "in", a="1", d__b="2")
    (tmp_path / "in/link").symlink_to("a")
    (tmp_path / "in/dlink").symlink_to("d")
    os.mkfifo(tmp_path / "in/pipe")
    report = transfer(source, Remote(bucket))
    assert (report.files, report.links, report.others) == (2, 2, 1)
    assert keys(bucket) == {"a", "d/b"}


def test_ignore_files_hold_for_uploads(bucket: Bucket, tmp_path: Path) -> None:
    source = grow(tmp_path / "in", a="1", d__x="2", d__y="3")
    (tmp_path / "in/.moorageignore").write_text("/d/x\n.moorageignore\n")
    transfer(source, Remote(bucket))
    assert keys(bucket) == {"a", "d/y"}
    transfer(source, Remote(bucket), Options(ignoring=False))
    assert keys(bucket) == {"a", "d/x", "d/y", ".moorageignore"}


def test_nothing_is_deleted_where_something_failed(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("extra", b"1")
    source = grow(tmp_path / "in", a="1")
    (tmp_path / "in" / "bad\nname").write_text("x")
    report = transfer(source, Remote(bucket), Options(delete=True))
    assert report.deleted == 0
    assert "control character" in str(report.problems[0])
    assert keys(bucket) == {"a", "extra"}


def test_an_empty_source_deletes_nothing(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("a", b"1")
    (tmp_path / "in").mkdir()
    with pytest.raises(InvalidInput, match="empty, and everything would be deleted"):
        transfer(Local(str(tmp_path / "in")), Remote(bucket), Options(delete=True))
    with pytest.raises(InvalidInput, match="is one file; leave out --delete"):
        transfer(Remote(bucket, "a"), Local(str(tmp_path / "x")), Options(delete=True))


def test_what_is_not_there(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such object, and nothing below it"):
        transfer(Remote(bucket, "nothing"), Local(str(tmp_path / "out")))
    with pytest.raises(InvalidInput, match="no such file"):
        transfer(Local(str(tmp_path / "missing")), Remote(bucket))


def test_a_full_disk_is_said_before_anything_moves(
    bucket: Bucket, large: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        f_bavail, f_frsize = 17, 2**20

    monkeypatch.setattr(download.os, "statvfs", lambda path: Full)
    with pytest.raises(Unavailable, match=r"1\.3 MB are to be written, and 1\.0 MB are free"):
        transfer(Remote(bucket), Local(str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_ends_all(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        bucket.put(f"f{number}", b"1")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_write", full)
    with pytest.raises(Unavailable, match="no space left on device"):
        transfer(Remote(bucket), Local(str(tmp_path / "out")))


def test_a_file_where_a_directory_is_wanted(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("a/b", b"1")
    bucket.put("c", b"2")
    target = grow(tmp_path / "out", a="a file")
    (tmp_path / "out/c").mkdir()
    report = transfer(Remote(bucket), target)
    assert sorted(problem.file for problem in report.problems) == [
        f"{target.path}/a/b",
        f"{target.path}/c",
    ]
    assert (tmp_path / "out/a").read_text() == "a file"


def test_it_can_be_called_off(bucket: Bucket, large: bytes, tmp_path: Path) -> None:
    stopper = Stopper()
    token = current.set(stopper)
    try:
        with pytest.raises(Stopped):
            transfer(Remote(bucket), Local(str(tmp_path / "out")), tell=lambda now: stopper.stop())
    finally:
        current.reset(token)
    assert not (tmp_path / "out/large").exists()
    transfer(Remote(bucket), Local(str(tmp_path / "out"))).require_all()
    assert (tmp_path / "out/large").read_bytes() == large
