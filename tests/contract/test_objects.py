"""What `data/objects` and `data/transfer` promise, against real stores on loopback: SeaweedFS,
moto (S3), fake-gcs-server (GCS) and Azurite (Azure)."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from moorage.data.objects.bucket import Bucket, open_bucket
from moorage.data.objects.errors import StoreProblem
from moorage.data.transfer.compare import Options, compare
from moorage.data.transfer.engine import Report, carry_out, transfer
from moorage.data.transfer.partfile import PART
from moorage.data.transfer.places import Local, Place, Progress, Remote
from testbed.stores import StoreServer

MANY = 60
STRANGE = (
    "plain", "a b/c d.txt", "ünï/côdé.txt", "日本/語.txt", "a%20b", "x+y&z=1", "..hidden", "a..b",
    "q?m", "ha#sh", "ti~lde", "br[a]", "cur{l}", "qu'ote", "at@sign", "semi;colon", "eq=al",
    "com,ma", "dol$ar", "(par)en", "deep/er/and/deep/er",
)  # fmt: skip


@pytest.fixture
def bucket(object_store: StoreServer) -> Bucket:
    if object_store.name == "fake-gcs":
        pytest.skip("fake-gcs-server takes uploads by Google's JSON API only, obstore's are XML")
    return open_bucket(object_store.access, object_store.make_bucket(), patience=5)


def test_reading_what_others_wrote(object_store: StoreServer, tmp_path: Path) -> None:
    name = object_store.make_bucket()
    for key, content in (("a/b c", b"1"), ("a/empty", b""), ("top", b"2" * 100_000)):
        object_store.write(name, key, content)
    bucket = open_bucket(object_store.access, name, patience=5)
    assert move(Remote(bucket), Local(str(tmp_path / "out"))).files == 3
    assert read(tmp_path / "out") == {"a/b c": b"1", "a/empty": b"", "top": b"2" * 100_000}
    assert move(Remote(bucket), Local(str(tmp_path / "out"))).unchanged == 3
    assert move(Remote(bucket, "a"), Local(str(tmp_path / "below"))).files == 2
    move(Remote(bucket, "top"), Local(str(tmp_path / "one"))).require_all()
    assert (tmp_path / "one").read_bytes() == b"2" * 100_000


def write(root: Path, files: dict[str, bytes]) -> Local:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Local(str(root))


def read(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def move(source: Place, target: Place, **options: bool) -> Report:
    return transfer(source, target, Options(**options))


def test_single_objects(bucket: Bucket) -> None:
    etag = bucket.put("a/b", b"hello")
    found = bucket.head("a/b")
    assert (found.key, found.size) == ("a/b", 5)
    assert bucket.get("a/b") == b"hello"
    assert b"".join(bucket.pieces("a/b", 1, 4)) == b"ell"
    assert bytes(bucket.buffer("a/b", found.etag)[0]) == b"hello"
    bucket.copy("a/b", "a/c")
    assert [one.key for page in bucket.list("a") for one in page] == ["a/b", "a/c"]
    bucket.put("empty", b"")
    assert bucket.get("empty") == b""
    bucket.delete(["a/b", "a/c", "never-was", "empty"])
    assert [one for page in bucket.list() for one in page] == []
    assert etag


def test_what_is_not_there(object_store: StoreServer) -> None:
    bucket = open_bucket(object_store.access, object_store.make_bucket(), patience=5)
    for call in (bucket.get, bucket.head):
        with pytest.raises(StoreProblem, match="there is no such object") as caught:
            call("nothing/here")
        assert caught.value.reason == "no-object"
        assert "nothing/here" in str(caught.value)
    if object_store.name == "fake-gcs":
        return  # it says 500, where Google says 404
    nowhere = open_bucket(object_store.access, "no-such-bucket-at-all", patience=5)
    with pytest.raises(StoreProblem, match="there is no such bucket") as caught:
        nowhere.check()
    assert caught.value.reason == "no-bucket"


def test_there_and_back(bucket: Bucket, tmp_path: Path) -> None:
    files = {f"d{n % 7}/f{n}": bytes([n]) * n for n in range(MANY)}
    source = write(tmp_path / "in", files)
    told: list[Progress] = []
    sent = transfer(source, Remote(bucket, "sub/dir"), tell=told.append)
    assert (sent.files, sent.bytes, sent.problems) == (MANY, sum(range(MANY)), [])
    assert told[-1] == Progress(MANY, MANY, sent.bytes, sent.bytes)
    back = move(Remote(bucket, "sub/dir"), Local(str(tmp_path / "out")))
    assert (back.files, back.problems) == (MANY, [])
    assert read(tmp_path / "out") == files
    again = move(Remote(bucket, "sub/dir"), Local(str(tmp_path / "out")))
    assert (again.files, again.unchanged) == (0, MANY)


def test_only_changes_move(bucket: Bucket, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a": b"1", "b": b"2", "c": b"3"})
    move(source, Remote(bucket))
    old = tmp_path / "in/a"
    old.write_bytes(b"9")
    os.utime(old, (1, 1))  # restored with an old time: not to be missed
    assert move(source, Remote(bucket)).files >= 1
    assert bucket.get("a") == b"9"
    out = Local(str(tmp_path / "out"))
    move(Remote(bucket), out)
    (tmp_path / "out/b").write_bytes(b"x")
    assert move(Remote(bucket), out).files == 1
    assert (tmp_path / "out/b").read_bytes() == b"2"


def test_mirror(bucket: Bucket, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"keep": b"1", "x.log": b"2", ".moorageignore": b"*.log\n"})
    bucket.put("old/er", b"gone")
    bucket.put("y.log", b"ignored, not the source's")
    report = move(source, Remote(bucket), delete=True)
    assert (report.deleted, report.problems) == (1, [])
    keys = {one.key for page in bucket.list() for one in page}
    assert keys == {"keep", "y.log", ".moorageignore"}
    target = write(tmp_path / "out", {"extra/deep/file": b"0", "keep": b"0"})
    assert move(Remote(bucket), target, delete=True).deleted == 1
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == [
        ".moorageignore",
        "keep",
        "y.log",
    ]


def test_strange_names(bucket: Bucket, tmp_path: Path) -> None:
    files = {name: name.encode() for name in STRANGE}
    move(write(tmp_path / "in", files), Remote(bucket)).require_all()
    move(Remote(bucket), Local(str(tmp_path / "out"))).require_all()
    assert read(tmp_path / "out") == files


def test_a_large_object(bucket: Bucket, tmp_path: Path) -> None:
    content = os.urandom(35 * 1024 * 1024 + 7)
    source = write(tmp_path, {"in/large": content})
    move(Local(f"{source.path}/in"), Remote(bucket)).require_all()
    assert bucket.head("large").size == len(content)
    move(Remote(bucket, "large"), Local(str(tmp_path / "out"))).require_all()
    assert (tmp_path / "out").read_bytes() == content
    s3 = bucket.access.kind == "s3"  # Azure's etags tell nothing of the content
    again = move(Local(f"{source.path}/in"), Remote(bucket), checksum=s3)
    assert (again.unchanged, again.problems) == (1 if s3 else again.unchanged, [])


def test_between_buckets(bucket: Bucket, object_store: StoreServer, tmp_path: Path) -> None:
    files = {"a/b": b"1", "empty": b"", "large": os.urandom(20 * 1024 * 1024)}
    move(write(tmp_path / "in", files), Remote(bucket, "from")).require_all()
    other = open_bucket(object_store.access, object_store.make_bucket(), patience=5)
    for target in (Remote(other, "to"), Remote(bucket, "copy")):
        report = move(Remote(bucket, "from"), target)
        assert (report.files, report.problems) == (3, [])
        assert move(Remote(bucket, "from"), target).unchanged == 3
    move(Remote(other, "to"), Local(str(tmp_path / "out"))).require_all()
    assert read(tmp_path / "out") == files


def test_an_object_whose_key_is_a_directory(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("a", b"content")
    try:
        bucket.put("a/b", b"below")
    except StoreProblem:
        pytest.skip("this store keeps no object below another")
    report = move(Remote(bucket), Local(str(tmp_path / "out")))
    if {"a", "a/b"} <= {one.key for page in bucket.list() for one in page}:
        [problem] = report.problems
        assert "no file can be a directory too" in str(problem)
    assert (tmp_path / "out/a/b").read_bytes() == b"below"
    move(Remote(bucket, "a"), Local(str(tmp_path / "alone"))).require_all()
    assert (tmp_path / "alone").read_bytes() == b"content"


def put_raw(server: StoreServer, bucket: str, key: str, content: bytes) -> None:
    """Any key at all, as other programs may have written it."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.access.secrets["access_key_id"],
        aws_secret_access_key=server.access.secrets["secret_access_key"],
    )
    client.put_object(Bucket=bucket, Key=key, Body=content)
    client.close()


def test_no_key_escapes_the_directory(moto: StoreServer, tmp_path: Path) -> None:
    name = moto.make_bucket()
    odd = ("../escaped", "a/../../escaped", "/absolute", "a//b", "tab\tkey", "./dot", "tail//")
    for key in odd:
        put_raw(moto, name, key, b"bad")
    put_raw(moto, name, "good/one", b"good")
    put_raw(moto, name, "marker/", b"")
    put_raw(moto, name, "marked/", b"")
    put_raw(moto, name, "marked/file", b"below")
    bucket = open_bucket(moto.access, name, patience=5)
    out = tmp_path / "deep" / "out"
    report = move(Remote(bucket), Local(str(out)))
    assert read(tmp_path) == {"deep/out/good/one": b"good", "deep/out/marked/file": b"below"}
    assert len(report.problems) >= len(odd) - 1
    assert move(Remote(bucket, "good"), Local(str(tmp_path / "below"))).problems == []


def test_marks_of_directories(seaweed: StoreServer, tmp_path: Path) -> None:
    name = seaweed.make_bucket()
    for key, content in (("empty/", b""), ("full/", b""), ("full/a", b"1"), ("zero", b"")):
        put_raw(seaweed, name, key, content)
    bucket = open_bucket(seaweed.access, name, patience=5)
    move(Remote(bucket), Local(str(tmp_path / "out"))).require_all()
    assert read(tmp_path / "out") == {"full/a": b"1", "zero": b""}
    assert move(Remote(bucket, "full"), Local(str(tmp_path / "full"))).files == 1
    assert move(Remote(bucket), Local(str(tmp_path / "out"))).problems == []


def test_another_writer_is_noticed(seaweed: StoreServer, tmp_path: Path) -> None:
    bucket = open_bucket(seaweed.access, seaweed.make_bucket(), patience=5)
    source = write(tmp_path / "in", {"a": b"mine", "b": b"mine too"})
    plan = compare(source, Remote(bucket))
    real = bucket.put

    def raced(key: str, content: bytes | memoryview) -> str:
        etag = real(key, content)
        if key == "a":
            real(key, b"ours")
        return etag

    bucket.put = raced  # type: ignore[method-assign]  # the race, made certain
    [problem] = carry_out(plan).problems
    assert "somebody else wrote it meanwhile" in str(problem)


def test_a_store_that_goes_away_is_gone_on_with(own_seaweed: StoreServer, tmp_path: Path) -> None:
    bucket = open_bucket(own_seaweed.access, own_seaweed.make_bucket(), patience=1)
    content = random.Random(1).randbytes(4 * PART)
    move(write(tmp_path / "in", {"large": content}), Remote(bucket)).require_all()
    arrived: list[int] = []

    def kill_in_the_middle(now: Progress) -> None:
        arrived.append(now.bytes)
        if now.bytes > 2 * PART and own_seaweed._process is not None:
            own_seaweed.kill()

    out = Local(str(tmp_path / "out"))
    with pytest.raises(StoreProblem):
        transfer(Remote(bucket), out, Options(threads=2), kill_in_the_middle)
    assert not (tmp_path / "out/large").exists()
    own_seaweed.start()
    arrived.clear()
    bucket = open_bucket(own_seaweed.access, bucket.name, patience=30)  # it is not ready at once
    transfer(Remote(bucket), out, Options(), lambda now: arrived.append(now.bytes)).require_all()
    assert arrived[0] >= PART
    assert (tmp_path / "out/large").read_bytes() == content


LARGE = pytest.mark.skipif("MOORAGE_TEST_LARGE" not in os.environ, reason="MOORAGE_TEST_LARGE")


@LARGE
@pytest.mark.timeout(1500)
def test_more_than_5_gb(seaweed: StoreServer, tmp_path: Path) -> None:
    bucket = open_bucket(seaweed.access, seaweed.make_bucket(), patience=30)
    size = 5 * 2**30 + 12_345
    (tmp_path / "in").mkdir()
    with (tmp_path / "in/huge").open("wb") as file:
        file.truncate(size)
        file.seek(size - 3)
        file.write(b"end")
    move(Local(str(tmp_path / "in")), Remote(bucket)).require_all()
    assert bucket.head("huge").size == size
    assert b"".join(bucket.pieces("huge", size - 5, size)) == b"\0\0end"


@LARGE
@pytest.mark.timeout(1500)
def test_100000_keys(seaweed: StoreServer, tmp_path: Path) -> None:
    bucket = open_bucket(seaweed.access, seaweed.make_bucket(), patience=30)
    many = tmp_path / "many"
    for number in range(100_000):
        path = many / f"d{number // 1000}" / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert move(Local(str(many)), Remote(bucket)).files == 100_000
    back = Local(str(tmp_path / "back"))
    assert move(Remote(bucket), back).files == 100_000
    began = time.process_time()
    assert move(Remote(bucket), back).unchanged == 100_000
    assert time.process_time() - began < 20
