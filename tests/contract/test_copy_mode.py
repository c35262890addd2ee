"""Mode `copy` of buckets against real stores on loopback. What root gets (an overlay) and what
others do (a private copy) is told apart in `tests/unit/data/copies`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest

from copynode import CopyNode
from moorage.data import stopping
from moorage.data.base import SourceError
from moorage.data.buckets import Moved, NotFlushed
from moorage.data.copies import mode, overlay
from moorage.specs.mounts import Bucket
from moorage.specs.stores.record import Access
from testbed.stores import StoreServer

LARGE = 20 * 1024 * 1024
"""Sent and fetched in parts."""
STRANGE = (
    "plain", "a b/c d.txt", "ünï/côdé.txt", "e\u0301", "日本/語.txt", "a%20b", "x+y&z=1",
    "..hidden", "a..b", "q?m", "ha#sh", "ti~lde", "br[a]", "-rf", "deep/er/and/deep/er",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for directory in (*tmp_path.glob("attempts/*/mounts/*"), *tmp_path.glob("unflushed/*/*")):
        overlay.leave(directory)


def copy_of(bucket: str, path: str = "", **options: Any) -> Bucket:
    return Bucket("/data", "s3", bucket, path, mode="copy", **options)


def seen(node: CopyNode, bucket: Bucket, key: str = "7.1.0") -> Path:
    [bind] = node.mode.prepare(node.use(bucket, key)).binds
    return bind.source


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def silent(_moved: Moved) -> None:
    pass


def s3(server: StoreServer) -> Any:
    """Amazon's own client, for keys that no other one would write."""
    secrets = server.access.secrets
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=secrets["access_key_id"],
        aws_secret_access_key=secrets["secret_access_key"],
        region_name="us-east-1",
    )


def test_a_bucket_a_part_of_it_and_one_object(
    object_store: StoreServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = object_store.make_bucket()
    wanted = {"top": b"1", "d/empty": b"", "d/e/f g": b"2" * 100_000, "dx": b"3"}
    for key, data in wanted.items():
        object_store.write(name, key, data)
    node = CopyNode(home, object_store.access)
    assert content(seen(node, copy_of(name, read_only=True))) == wanted
    part = content(seen(node, copy_of(name, "d", read_only=True), "8.1.0"))
    assert part == {"empty": b"", "e/f g": b"2" * 100_000}
    one = seen(node, copy_of(name, "d/e/f g", read_only=True), "9.1.0")
    assert one.read_bytes() == b"2" * 100_000
    handle = node.mode.prepare(node.use(copy_of(name, read_only=True)))
    assert handle.detail.endswith("nothing fetched")
    with pytest.raises(SourceError, match=r"there is nothing at .*; correct the path"):
        seen(node, copy_of(name, "no/such"))
    monkeypatch.setattr(mode, "_FETCHING", 1.0)  # fake-gcs-server says 500, which is tried again
    with pytest.raises(SourceError, match=r"no such bucket|no bucket named"):
        seen(node, copy_of(f"{name}-not"))


def test_strange_names_there_and_back(object_store: StoreServer, home: Path) -> None:
    if object_store.name == "fake-gcs":
        pytest.skip("fake-gcs-server takes uploads by Google's JSON API only, obstore's are XML")
    name = object_store.make_bucket()
    node = CopyNode(home, object_store.access)
    root = seen(node, copy_of(name, sync_back=True))
    for path in STRANGE:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    detail = node.mode.flush(node.use(copy_of(name, sync_back=True)), silent, 60)
    assert detail == f"{len(STRANGE)} files uploaded"
    again = content(seen(node, copy_of(name), "8.1.0"))
    assert again == {path: path.encode() for path in STRANGE}
    assert set(object_store.listing(name)) == set(STRANGE)


def test_changes_and_what_others_changed_meanwhile(object_store: StoreServer, home: Path) -> None:
    if object_store.name == "fake-gcs":
        pytest.skip("fake-gcs-server takes uploads by Google's JSON API only, obstore's are XML")
    name = object_store.make_bucket()
    for key in ("same", "mine", "theirs", "equal", "removed", "gone", "big"):
        object_store.write(name, key, key.encode() * (LARGE // 3 if key == "big" else 1))
    node, bucket = CopyNode(home, object_store.access), copy_of(name, sync_back=True)
    root = seen(node, bucket)
    for key in ("mine", "theirs", "equal", "removed", "new"):
        (root / key).write_bytes(b"by the job")
    (root / "gone").unlink()
    with open(root / "big", "r+b") as file:
        file.write(b"changed")
    (root / "big-new").write_bytes(b"n" * LARGE)
    object_store.write(name, "theirs", b"by somebody")
    object_store.write(name, "equal", b"by the job")
    object_store.rclone("deletefile", f"X:{name}/removed")
    told: list[Moved] = []
    detail = node.mode.flush(node.use(bucket), told.append, 60)
    assert detail == (
        "7 files uploaded; 1 object stays though the job removed the file; changed by somebody "
        "else meanwhile, and stored beside theirs: theirs.moorage-7.1.0"
    )
    assert told[-1].done == told[-1].total > 2 * LARGE - 100
    now = object_store.listing(name)
    assert sorted(now) == sorted(
        ["same", "mine", "theirs", "theirs.moorage-7.1.0", "equal", "removed", "gone", "new",
         "big", "big-new"]
    )  # fmt: skip
    for key, data in (
        ("mine", b"by the job"),
        ("theirs", b"by somebody"),
        ("theirs.moorage-7.1.0", b"by the job"),
        ("removed", b"by the job"),
        ("new", b"by the job"),
    ):
        assert object_store.read(name, key) == data
    assert object_store.read(name, "big")[:10] == b"changedigb"
    assert now["big-new"] == LARGE
    # A large one that somebody else changed.
    other = seen(node, bucket, "8.1.0")
    (other / "big-new").write_bytes(b"m" * LARGE)
    object_store.write(name, "big-new", b"theirs")
    detail = node.mode.flush(node.use(bucket, "8.1.0"), silent, 60)
    assert "stored beside theirs: big-new.moorage-8.1.0" in detail
    assert object_store.read(name, "big-new") == b"theirs"
    assert node.mode.flush(node.use(bucket, "8.1.0"), silent, 60) == ""


@pytest.mark.parametrize("which", ["seaweed", "moto"])
def test_keys_that_are_no_names_of_files(
    which: str, home: Path, request: pytest.FixtureRequest
) -> None:
    server: StoreServer = request.getfixturevalue(which)
    name, client = server.make_bucket(), s3(server)
    for key in ("ok", "d/", "d/f", "empty/dir/", "both", "both/below", "zero", "a/zero"):
        empty = key.endswith(("/", "zero"))
        client.put_object(Bucket=name, Key=key, Body=b"" if empty else b"x")
    odd = ["e//f", "x/../y", "p/./q", "/abs"] if which == "moto" else ["line\nend"]
    for key in odd:
        client.put_object(Bucket=name, Key=key, Body=b"x")
    node = CopyNode(home, server.access)
    handle = node.mode.prepare(node.use(copy_of(name, read_only=True)))
    root = handle.binds[0].source
    assert content(root) == {
        "ok": b"x", "d/f": b"x", "both/below": b"x", "zero": b"", "a/zero": b"",
    }  # fmt: skip
    assert (root / "empty/dir").is_dir()
    assert f"{len(odd) + 1} objects left out (" in handle.detail
    for key in odd:
        client.delete_object(Bucket=name, Key=key)
    client.close()


def test_a_directory_of_which_the_engine_shows_an_object(moto: StoreServer, home: Path) -> None:
    name, client = moto.make_bucket(), s3(moto)
    client.put_object(Bucket=name, Key="made/by/console/", Body=b"")
    client.put_object(Bucket=name, Key="zero", Body=b"")
    client.close()
    root = seen(CopyNode(home, moto.access), copy_of(name, read_only=True))
    assert (root / "made/by/console").is_dir()
    assert (root / "zero").is_file()


def test_a_directory_as_a_store(home: Path) -> None:
    """It has no conditional writes, and etags of its own."""
    top = home / "store" / "bucket"
    (top / "d").mkdir(parents=True)
    for name in ("d/mine", "theirs"):
        (top / name).write_bytes(b"old")
    node = CopyNode(home, Access("file", endpoint=str(home / "store")))
    bucket = copy_of("bucket", sync_back=True)
    root = seen(node, bucket)
    for name in ("d/mine", "theirs", "new"):
        (root / name).write_bytes(b"by the job")
    (top / "theirs").write_bytes(b"by somebody")
    detail = node.mode.flush(node.use(bucket), silent, 5)
    assert detail.endswith("and stored beside theirs: theirs.moorage-7.1.0")
    assert content(top) == {
        "d/mine": b"by the job",
        "new": b"by the job",
        "theirs": b"by somebody",
        "theirs.moorage-7.1.0": b"by the job",
    }


def test_a_store_that_dies_and_comes_back(
    own_seaweed: StoreServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = own_seaweed.make_bucket()
    own_seaweed.write(name, "a", b"old")
    node, bucket = CopyNode(home, own_seaweed.access), copy_of(name, sync_back=True)
    root = seen(node, bucket)
    (root / "a").write_bytes(b"new")
    (root / "b").write_bytes(b"b")
    own_seaweed.kill()
    # What is tried again for a second and more says nothing meanwhile.
    monkeypatch.setattr(mode, "_UPLOADING", 0.1)
    with pytest.raises(NotFlushed, match="does not answer") as caught:
        node.mode.flush(node.use(bucket), silent, 2)
    monkeypatch.undo()
    assert caught.value.files == ["a", "b"]
    node.mode.release(node.use(bucket))
    kept = home / "unflushed/7.1.0/0"
    done: list[BaseException | None] = []

    def resume() -> None:
        try:
            node.mode.resume(bucket, kept, own_seaweed.access, silent, 60)
        except BaseException as error:
            done.append(error)
        else:
            done.append(None)

    flushing = threading.Thread(target=resume)
    flushing.start()
    own_seaweed.start()
    flushing.join(90)
    assert done == [None]
    assert not kept.exists()
    assert own_seaweed.read(name, "a") == b"new"


def test_a_store_that_hangs_does_not_hold_a_stop(own_seaweed: StoreServer, home: Path) -> None:
    name = own_seaweed.make_bucket()
    own_seaweed.write(name, "a", b"x" * 1000)
    node = CopyNode(home, own_seaweed.access)
    own_seaweed.freeze()
    stopper = stopping.Stopper()
    errors: list[str] = []

    def prepare() -> None:
        stopping.current.set(stopper)
        with pytest.raises(SourceError) as caught:
            seen(node, copy_of(name, read_only=True))
        errors.append(str(caught.value))

    thread = threading.Thread(target=prepare)
    thread.start()
    stopper.stop()
    thread.join(60)
    over = not thread.is_alive()
    own_seaweed.thaw()
    thread.join(60)
    assert over
    assert errors == ["/data: stopped"]


PROGRAM = """
import itertools, os, signal, sys
from pathlib import Path
import msgspec
from copynode import CopyNode
from moorage.data.copies import fetching
from moorage.specs.mounts import Bucket
from moorage.specs.stores.record import Access

what, home, access, bucket, moves = sys.argv[1:]
count = itertools.count()

def say(*_):
    if next(count) == int(moves):
        os.kill(os.getpid(), signal.SIGKILL)

fetching._Progress.arrived = say
node = CopyNode(Path(home), msgspec.json.decode(access, type=Access))
use = node.use(msgspec.json.decode(bucket, type=Bucket))
if what == "prepare":
    node.mode.prepare(use)
else:
    node.mode.flush(use, say, 60)
"""


def killed(what: str, node: CopyNode, bucket: Bucket, moves: int) -> bool:
    """Run it in a process that kills itself -9 after so many moves; True: it came to its end."""
    words = [what, str(node.home)]
    words += [msgspec.json.encode(one).decode() for one in (node.access, bucket)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    code = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words, str(moves)],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
        timeout=120,
    ).returncode
    assert code in (0, -9)
    return code == 0


def test_kill_9_in_the_middle_of_fetching_and_of_uploading(
    seaweed: StoreServer, home: Path
) -> None:
    name, luck = seaweed.make_bucket(), random.Random(7)
    wanted = {f"d{n % 7}/{n}": luck.randbytes(5000) for n in range(60)}
    wanted["large"] = luck.randbytes(LARGE)
    source = home / "source"
    for key, data in wanted.items():
        (source / key).parent.mkdir(parents=True, exist_ok=True)
        (source / key).write_bytes(data)
    seaweed.rclone("copy", str(source), f"X:{name}")
    node, bucket = CopyNode(home, seaweed.access), copy_of(name, sync_back=True)
    kills = 0
    while not killed("prepare", node, bucket, luck.randrange(20, 80)):
        kills += 1
    assert kills >= 2
    root = seen(node, bucket)
    assert content(root) == wanted
    assert not list(home.glob("cache/buckets/.*"))
    for key in list(wanted)[::2]:
        wanted[key] = wanted[f"new/{key}"] = luck.randbytes(len(wanted[key]))
        for path in (root / key, root / "new" / key):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(wanted[key])
    kills = 0
    while not killed("flush", node, bucket, luck.randrange(20, 60)):
        kills += 1
    assert kills >= 2
    there = home / "there"
    seaweed.rclone("copy", f"X:{name}", str(there))
    assert content(there) == wanted
