"""Mode `copy` from prepare to release, on a bucket in memory."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import msgspec
import pytest

from copynode import CopyNode
from moorage.data import stopping, telling
from moorage.data.base import SourceError
from moorage.data.buckets import NOTE, Moved, NotFlushed
from moorage.data.copies import fetching, generations, overlay
from moorage.specs.mounts import Bucket
from moorage.specs.stores.record import Access

READ_ONLY = Bucket("/data", "s3", "b", read_only=True)
OWN = Bucket("/data", "s3", "b")
BACK = Bucket("/data", "s3", "b", sync_back=True)


@pytest.fixture(params=[pytest.param("overlay", marks=pytest.mark.root), "private"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the job gets a copy that it may write to."""
    if request.param == "private":
        monkeypatch.setattr(overlay.os, "geteuid", lambda: 1000)
    return str(request.param)


def seen(node: CopyNode, bucket: Bucket, key: str = "7.1.0") -> Path:
    [bind] = node.mode.prepare(node.use(bucket, key)).binds
    assert bind.target == Path("/data")
    return bind.source


def silent(_moved: Moved) -> None:
    pass


def test_a_read_only_copy_is_the_generation_itself(node: CopyNode) -> None:
    node.shelf.write("a", b"one")
    node.shelf.write("d/e", b"two")
    handle = node.mode.prepare(node.use(READ_ONLY))
    [bind] = handle.binds
    assert bind.read_only
    assert bind.source.is_relative_to(node.home / "cache")
    assert (bind.source / "d/e").read_bytes() == b"two"
    assert handle.detail == "/data: 2 files, 6 B, 6 B fetched"
    again = node.mode.prepare(node.use(READ_ONLY, "8.1.0"))
    assert again.binds == [bind]
    assert again.detail == "/data: 2 files, 6 B, nothing fetched"


def test_modes_and_times(node: CopyNode, way: str) -> None:
    node.shelf.write("d/a", b"one", 1_700_000_000.125)
    old = os.umask(0o077)
    try:
        root = seen(node, OWN)
    finally:
        os.umask(old)
    assert [stat.S_IMODE((root / name).stat().st_mode) for name in (".", "d", "d/a")] == [
        0o755, 0o755, 0o644,
    ]  # fmt: skip
    assert (root / "d/a").stat().st_mtime == 1_700_000_000.125
    assert (root / "d/a").stat().st_uid == os.getuid()


def test_what_a_job_writes_stays_its_own(node: CopyNode, way: str) -> None:
    node.shelf.write("a", b"one")
    node.shelf.write("gone", b"x")
    root = seen(node, OWN)
    (root / "a").write_bytes(b"mine")
    (root / "new").write_bytes(b"new")
    (root / "gone").unlink()
    other = seen(node, OWN, "8.1.0")
    assert sorted(path.name for path in other.iterdir()) == ["a", "gone"]
    assert (other / "a").read_bytes() == b"one"
    assert node.mode.flush(node.use(OWN), silent, 5) == ""
    node.mode.release(node.use(OWN))
    node.mode.release(node.use(OWN))
    assert node.shelf.uploaded == []
    assert not (node.home / "unflushed").exists()
    assert str(node.use(OWN).directory) not in Path("/proc/mounts").read_text()


def test_one_object_is_a_file(node: CopyNode, way: str) -> None:
    node.shelf.write("m/model.bin", b"weights")
    node.shelf.write("m/other", b"")
    path = seen(node, Bucket("/data", "s3", "b", "m/model.bin", sync_back=True))
    assert path.read_bytes() == b"weights"
    path.write_bytes(b"better")
    bucket = Bucket("/data", "s3", "b", "m/model.bin", sync_back=True)
    assert node.mode.flush(node.use(bucket), silent, 5) == "1 file uploaded"
    assert node.shelf.read("m/model.bin") == b"better"


def test_nothing_there_is_an_error_unless_something_is_to_come(node: CopyNode, way: str) -> None:
    with pytest.raises(SourceError, match=r"^/data: there is nothing at s3://b/x/y; correct"):
        seen(node, Bucket("/data", "s3", "b", "x/y"))
    bucket = Bucket("/data", "s3", "b", "x/y", sync_back=True)
    root = seen(node, bucket)
    (root / "out").write_bytes(b"result")
    node.mode.flush(node.use(bucket), silent, 5)
    assert node.shelf.read("x/y/out") == b"result"
    assert list(seen(node, OWN, "9.1.0").iterdir()) != []


def test_an_empty_bucket_is_an_empty_directory(node: CopyNode) -> None:
    assert list(seen(node, READ_ONLY).iterdir()) == []


def test_what_was_left_out_is_said(node: CopyNode) -> None:
    node.shelf.write("a//b", b"one")
    node.shelf.write("a", b"one")
    handle = node.mode.prepare(node.use(READ_ONLY))
    assert handle.detail == (
        "/data: 1 file, 3 B, 3 B fetched; 1 object left out ('a//b': a part of its key is empty)"
    )


def test_unchanged_objects_are_linked_from_the_generation_before(node: CopyNode) -> None:
    for key in ("a", "b", "d/c"):
        node.shelf.write(key, key.encode())
    before = seen(node, READ_ONLY)
    node.shelf.write("b", b"changed")
    node.shelf.fetched.clear()
    after = seen(node, READ_ONLY, "8.1.0")
    assert node.shelf.fetched == ["b"]
    assert before != after
    assert (after / "d/c").samefile(before / "d/c")
    assert ((before / "b").read_bytes(), (after / "b").read_bytes()) == (b"b", b"changed")
    # Another part of the bucket shares them too.
    node.shelf.fetched.clear()
    part = seen(node, Bucket("/data", "s3", "b", "d", read_only=True), "9.1.0")
    assert node.shelf.fetched == []
    assert (part / "c").samefile(before / "d/c")


def test_attempts_that_want_the_same_fetch_it_once(node: CopyNode) -> None:
    node.shelf.write("a", b"one")
    node.shelf.gate = threading.Event()
    roots: list[Path] = []
    threads = [
        threading.Thread(target=lambda n=n: roots.append(seen(node, READ_ONLY, f"{n}.1.0")))
        for n in range(5)
    ]
    for thread in threads:
        thread.start()
    assert node.shelf.fetching.wait(30)
    node.shelf.gate.set()
    for thread in threads:
        thread.join(60)
    assert len(roots) == 5
    assert len(set(roots)) == 1
    assert node.shelf.fetched == ["a"]
    assert node.shelf.listings <= 5


def test_whoever_waits_can_be_stopped(node: CopyNode) -> None:
    node.shelf.write("a", b"one")
    node.shelf.gate = threading.Event()
    first = threading.Thread(target=seen, args=(node, READ_ONLY))
    first.start()
    assert node.shelf.fetching.wait(30)
    stopper = stopping.Stopper()
    errors: list[str] = []

    def second() -> None:
        stopping.current.set(stopper)
        with pytest.raises(SourceError) as caught:
            seen(node, READ_ONLY, "8.1.0")
        errors.append(str(caught.value))

    waiting = threading.Thread(target=second)
    waiting.start()
    stopper.stop()
    waiting.join(60)
    assert errors == ["/data: stopped"]
    node.shelf.gate.set()
    first.join(60)
    assert node.shelf.fetched == ["a"]


def test_a_bucket_that_changes_meanwhile_is_listed_again(
    node: CopyNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.shelf.write("a", b"one")
    node.shelf.write("b", b"two")
    fetch = node.shelf.fetch

    def changing(wanted, arrived):  # type: ignore[no-untyped-def]
        if node.shelf.listings == 1:
            node.shelf.write("b", b"three")
        return fetch(wanted, arrived)

    monkeypatch.setattr(node.shelf, "fetch", changing)
    root = seen(node, READ_ONLY)
    assert (root / "b").read_bytes() == b"three"
    assert node.shelf.fetched == ["a", "b"]

    def always(wanted, arrived):  # type: ignore[no-untyped-def]
        node.shelf.write("b", b"x")
        return fetch(wanted, arrived)

    node.shelf.write("b", b"four")
    monkeypatch.setattr(node.shelf, "fetch", always)
    with pytest.raises(SourceError, match="changes faster than it can be copied; use mode: mount"):
        seen(node, READ_ONLY, "8.1.0")


def test_an_agent_that_died_leaves_what_it_fetched(node: CopyNode) -> None:
    node.shelf.write("a", b"one")
    node.shelf.write("b", b"two")
    fetch = node.shelf.fetch

    def dying(wanted, arrived):  # type: ignore[no-untyped-def]
        fetch(wanted[:1], arrived)
        raise KeyboardInterrupt

    node.shelf.fetch = dying  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        seen(node, READ_ONLY)
    (node.home / "cache/buckets/.making-half/content").mkdir(parents=True)
    node.restarted()
    assert not (node.home / "cache/buckets/.making-half").exists()
    node.shelf.fetch = fetch  # type: ignore[method-assign]
    seen(node, READ_ONLY)
    assert node.shelf.fetched == ["a", "b"]
    assert not list(node.home.glob("cache/buckets/.*"))


def test_after_a_crash_of_the_machine_only_what_is_on_disk_is_used(node: CopyNode) -> None:
    node.shelf.write("a", b"one")
    seen(node, READ_ONLY)
    [directory] = node.generations()
    record = directory / "generation.json"
    record.write_text(
        record.read_text().replace(f'"boot":"{generations.boot_id()}"', '"boot":"x"')
    )
    (directory / "synced").touch()
    node.restarted()
    assert node.generations() == [directory]
    (directory / "synced").unlink()
    node.restarted()
    assert node.generations() == []


def test_the_longest_unused_goes_first_and_what_is_used_stays(node: CopyNode) -> None:
    node.restarted(limit=25)
    roots = []
    for number in range(4):
        node.shelf.objects.clear()
        node.shelf.write("a", b"x" * 10)
        roots.append(seen(node, READ_ONLY, f"{number}.1.0"))
        os.utime(roots[-1].parent / "generation.json", (number, number))
    assert all(root.exists() for root in roots)
    for number in (0, 1, 2):
        for path in node.use(READ_ONLY, f"{number}.1.0").directory.iterdir():
            path.unlink()
    node.shelf.write("a", b"y" * 10)
    last = seen(node, READ_ONLY, "4.1.0")
    assert [root.exists() for root in (*roots, last)] == [False, False, False, True, True]


def test_too_little_space_is_said_before_anything_is_fetched(
    node: CopyNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.shelf.write("a", b"x" * 10)
    old = seen(node, READ_ONLY)
    for path in node.use(READ_ONLY).directory.iterdir():
        path.unlink()
    node.shelf.write("a", b"x" * 2048)
    monkeypatch.setattr("moorage.data.copies.generations.Generations._free", lambda _: 1024)
    node.shelf.fetched.clear()
    with pytest.raises(SourceError) as caught:
        seen(node, READ_ONLY)
    assert str(caught.value) == (
        f"/data: s3://b needs 2.0 KB, and 1.0 KB are free at {node.home}/cache/buckets; "
        "make room there, or use mode: mount"
    )
    assert node.shelf.fetched == []
    assert not old.exists()


def test_progress_is_told(node: CopyNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_TOLD", 0.0)
    said: list[str] = []
    token = telling.current.set(said.append)
    node.shelf.write("a", b"x" * 1024)
    node.shelf.write("b", b"x" * 3072)
    seen(node, READ_ONLY)
    telling.current.reset(token)
    assert said == ["fetching 1.0 of 4.0 KB", "fetching 4.0 of 4.0 KB"]


def test_changes_are_uploaded_and_nothing_else(node: CopyNode, way: str) -> None:
    for key in ("same", "edited", "touched", "gone", "d/inner", "renamed"):
        node.shelf.write(key, key.encode())
    root = seen(node, BACK)
    (root / "edited").write_bytes(b"EDITED")  # as long as before
    os.utime(root / "touched")
    (root / "d/inner").chmod(0o600)
    (root / "gone").unlink()
    (root / "renamed").rename(root / "elsewhere")
    (root / "new").mkdir()
    (root / "new/file").write_bytes(b"new")
    (root / "link").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe")
    told: list[Moved] = []
    detail = node.mode.flush(node.use(BACK), told.append, 5)
    assert sorted(node.shelf.uploaded) == ["edited", "elsewhere", "new/file"]
    assert node.shelf.read("edited") == b"EDITED"
    assert "gone" in node.shelf.objects
    assert detail.startswith("3 files uploaded; 2 objects stay though the job removed the file; ")
    assert "2 files left out (" in detail
    assert told[-1] == Moved(16, 16)
    node.shelf.uploaded.clear()
    node.mode.flush(node.use(BACK), silent, 5)
    assert node.shelf.uploaded == []
    node.mode.release(node.use(BACK))
    assert not (node.home / "unflushed").exists()


def test_a_file_in_the_place_of_another_of_its_size_and_time(node: CopyNode, way: str) -> None:
    node.shelf.write("a", b"aaa")
    node.shelf.write("b", b"bbb")
    root = seen(node, BACK)
    (root / "b").replace(root / "a")
    node.mode.flush(node.use(BACK), silent, 5)
    assert node.shelf.uploaded == ["a"]
    assert node.shelf.read("a") == b"bbb"


def test_a_directory_in_the_place_of_another(node: CopyNode, way: str) -> None:
    node.shelf.write("a/x", b"ax")
    node.shelf.write("b/x", b"bx")
    node.shelf.write("b/y/z", b"z")
    root = seen(node, BACK)
    os.rename(root / "a", root / "c")
    os.rename(root / "b", root / "a")
    node.mode.flush(node.use(BACK), silent, 5)
    assert sorted(node.shelf.uploaded) == ["a/x", "a/y/z", "c/x"]
    assert node.shelf.read("a/x") == b"bx"


def test_an_object_that_somebody_else_changed_is_not_overwritten(node: CopyNode, way: str) -> None:
    for key in ("theirs", "equal", "removed"):
        node.shelf.write(key, b"old")
    root = seen(node, BACK)
    for key in ("theirs", "equal", "removed", "both-new"):
        (root / key).write_bytes(b"mine")
    node.shelf.write("theirs", b"other")
    node.shelf.write("equal", b"mine")
    node.shelf.write("both-new", b"other")
    del node.shelf.objects["removed"]
    detail = node.mode.flush(node.use(BACK), silent, 5)
    assert detail == (
        "4 files uploaded; changed by somebody else meanwhile, and stored beside theirs: "
        "both-new.moorage-7.1.0, theirs.moorage-7.1.0"
    )
    assert node.shelf.read("theirs") == node.shelf.read("both-new") == b"other"
    assert node.shelf.read("theirs.moorage-7.1.0") == b"mine"
    assert node.shelf.read("removed") == b"mine"
    assert sorted(node.shelf.uploaded) == [
        "both-new.moorage-7.1.0", "removed", "theirs.moorage-7.1.0",
    ]  # fmt: skip


def test_an_agent_that_died_in_the_middle_goes_on(node: CopyNode, way: str) -> None:
    node.shelf.write("a", b"old")
    root = seen(node, BACK)
    for key in ("a", "b", "c"):
        (root / key).write_bytes(key.encode())
    put, others = node.shelf.put, threading.Semaphore(0)

    def dying(key, *rest):  # type: ignore[no-untyped-def]
        if key == "c":  # the others' threads would not die with it, as an agent's do
            assert all(others.acquire(timeout=30) for _ in range(2))
            raise KeyboardInterrupt
        put(key, *rest)
        others.release()

    node.shelf.put = dying  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        node.mode.flush(node.use(BACK), silent, 5)
    node.shelf.put = put  # type: ignore[method-assign]
    # Of the last upload nobody wrote down that it was done.
    (node.use(BACK).directory / "uploaded").write_text('["x')
    node.restarted()
    assert node.mode.flush(node.use(BACK), silent, 5) == "3 files uploaded"
    assert sorted(node.shelf.uploaded) == ["a", "b", "c"]


def test_what_could_not_be_uploaded_is_kept_and_can_be_later(node: CopyNode, way: str) -> None:
    node.shelf.write("a", b"old")
    root = seen(node, BACK)
    (root / "a").write_bytes(b"result")
    (root / "bad\udcff").write_bytes(b"x")
    (root / "ok").write_bytes(b"ok")
    put, use = node.shelf.put, node.use(BACK)

    def refusing(key, *rest):  # type: ignore[no-untyped-def]
        if key == "a":
            raise SourceError("access denied")
        put(key, *rest)

    node.shelf.put = refusing  # type: ignore[method-assign]
    with pytest.raises(NotFlushed, match=r"^a: access denied") as caught:
        node.mode.flush(use, silent, 5)
    assert caught.value.files == ["a", "bad\udcff"]
    node.mode.release(use)
    assert not use.directory.exists()
    kept = node.home / "unflushed/7.1.0/0"
    node.shelf.put = put  # type: ignore[method-assign]
    node.restarted(limit=0)
    node.shelf.write("other", b"x" * 10)
    seen(node, READ_ONLY, "8.1.0")  # makes the cache remove all that nobody uses
    with pytest.raises(NotFlushed) as caught:
        node.mode.resume(BACK, kept, Access("s3"), silent, 5)
    assert caught.value.files == ["bad\udcff"]
    assert node.shelf.read("a") == b"result"
    assert msgspec.json.decode((kept / NOTE).read_bytes(), type=Bucket) == BACK
    for merged in kept.glob("private"), kept.glob("upper"):
        for root in merged:
            (root / "bad\udcff").unlink()
    node.mode.resume(BACK, kept, Access("s3"), silent, 5)
    assert not kept.exists()


def test_a_job_that_wrote_nothing_leaves_nothing_where_the_store_is_away(
    node: CopyNode, way: str
) -> None:
    node.shelf.write("a", b"old")
    seen(node, BACK)
    node.mode.release(node.use(BACK))  # without a flush: it never had a process
    assert not (node.home / "unflushed").exists()
