"""MOUNT_CACHED at its worst moments: what a job finds of what it wrote."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec import structs

from moorage.agent.fsyncs import mounted
from moorage.agent.fsyncs.remote import Remote
from moorage.data.base import Place
from moorage.data.rclone import fuse, mount, program
from moorage.data.rclone.flushing import Flush
from moorage.data.rclone.mount import RcloneMount
from moorage.data.rclone.watching import Watch
from moorage.data.sources import Sources
from moorage.specs.mounts import Bucket, CacheOptions
from testbed.stores import StoreServer

pytestmark = pytest.mark.root


class Mortal:
    """A mount of a fresh bucket."""

    def __init__(self, home: Path, store: StoreServer) -> None:
        self.store, self.name = store, store.make_bucket()
        self.sources = Sources(home, lambda digests: iter(()), access=lambda *_: store.access)
        directory = home / "attempts" / "1.1.0"
        directory.mkdir(parents=True)
        self.place = Place(directory, directory / "work", home)
        self.mount = RcloneMount(directory / "mounts" / "0")
        self.bucket = Bucket("/data", store="s3", bucket=self.name, mode="cached")

    def begin(self, write_back: float | None = None) -> Path:
        cache = CacheOptions(write_back=write_back)
        self.bucket = structs.replace(self.bucket, cache=cache)
        return self.sources.buckets.prepare(self.bucket, self.place, 0).binds[0].source

    def flush(self) -> None:
        self.sources.buckets.flush(self.bucket, self.place, 0, lambda moved: None, 60.0)

    def stored(self, key: str) -> bytes:
        return self.store.rclone("cat", f"X:{self.name}/{key}")


@pytest.fixture
def mortal(tmp_path: Path, seaweed: StoreServer) -> Iterator[Mortal]:
    if why := program.why_not():
        pytest.skip(why)
    made = Mortal(tmp_path, seaweed)
    yield made
    made.sources.buckets.release(made.bucket, made.place, 0)


def test_what_was_written_is_itself_after_its_upload(mortal: Mortal) -> None:
    """rclone by itself shows a file that it took over as empty once it is uploaded, lets what is
    appended replace it, and leaves the object of one that is removed or renamed."""
    place = mortal.begin()
    for name in ("read", "appended", "removed", "renamed"):
        (place / name).write_bytes(b"acknowledged")
    (place / "deep").mkdir()
    (place / "deep" / "read").write_bytes(b"too")
    (place / "lock").touch()
    (place / "link").symlink_to("read")
    os.utime(place / "read", (1_000_000_000, 1_000_000_000))
    mortal.mount.kill()
    mortal.mount.start()
    assert {path.name for path in place.iterdir()} > {"appended", "deep", "link", "lock", "read"}
    mortal.flush()
    assert (place / "read").read_bytes() == b"acknowledged"
    assert (place / "read").stat().st_mtime == 1_000_000_000
    assert (place / "link").read_bytes() == b"acknowledged"
    assert (place / "deep" / "read").read_bytes() == b"too"
    with open(place / "appended", "ab") as file:
        file.write(b", too")
    (place / "removed").unlink()
    (place / "lock").unlink()
    (place / "renamed").rename(place / "other")
    assert (place / "other").read_bytes() == b"acknowledged"
    mortal.flush()
    assert mortal.store.listing(mortal.name) == {
        "appended": 17, "deep/read": 3, "link.rclonelink": 4, "other": 12, "read": 12,
    }  # fmt: skip
    assert mortal.stored("appended") == b"acknowledged, too"


def test_what_is_uploaded_while_it_is_taken_over_is_itself(mortal: Mortal, tmp_path: Path) -> None:
    count, old = 30, tmp_path / "old"
    old.mkdir()
    for number in range(0, count, 2):
        (old / f"{number}").write_bytes(b"an older and longer one")
    mortal.store.rclone("copy", str(old), f"X:{mortal.name}")
    place = mortal.begin(write_back=0.05)
    for number in range(count):
        (place / f"{number}").write_bytes(b"acknowledged %d" % number)
    mortal.mount.kill()
    mortal.mount.start()
    for number in range(count):
        with open(place / f"{number}", "ab") as file:
            file.write(b".")
    mortal.flush()
    for number in range(count):
        assert (place / f"{number}").read_bytes() == b"acknowledged %d." % number
    assert mortal.stored("7") == b"acknowledged 7."


def test_what_was_written_while_others_have_the_file_open(mortal: Mortal) -> None:
    """rclone notes what it has of a file when the last one closes it. By itself it cannot read the
    rest, or fetches what was there before over it."""
    old = b"o" * 300_000
    for name in ("replaced", "changed", "holes"):
        mortal.store.write(mortal.name, name, old)
    place = mortal.begin()
    readers = []
    for name in ("new", "replaced", "changed", "holes"):
        with open(place / name, "r+b" if name == "changed" else "wb", buffering=0) as file:
            file.write(b"n")
            readers.append(os.open(place / name, os.O_RDONLY))
            os.read(readers[-1], 1)
            if name in ("changed", "holes"):
                file.seek(150_001)
            file.write(b"n" * 5000)
            if name == "changed":
                file.seek(0, os.SEEK_END)
                file.write(b"n")
    mortal.mount.kill()
    for reader in readers:
        with suppress(OSError):
            os.close(reader)
    mortal.mount.start()
    expected = {
        "new": b"n" * 5001,
        "replaced": b"n" * 5001,
        "changed": b"n" + old[1:150_001] + b"n" * 5000 + old[155_001:] + b"n",
        "holes": b"n" + bytes(150_000) + b"n" * 5000,
    }
    assert {name: (place / name).read_bytes() for name in expected} == expected
    mortal.flush()
    assert {name: mortal.stored(name) for name in expected} == expected


def test_what_was_being_renamed(mortal: Mortal) -> None:
    """Killed between the two steps in which rclone does it; the write was acknowledged."""
    mortal.store.write(mortal.name, "final", b"an older one")
    place = mortal.begin()
    assert (place / "final").read_bytes() == b"an older one"
    (place / "final.tmp").write_bytes(b"acknowledged")
    mortal.mount.kill()
    [content] = (mortal.mount.directory / "cache" / "vfs").rglob("final.tmp")
    content.rename(content.with_name("final"))
    mortal.mount.start()
    assert (place / "final").read_bytes() == b"acknowledged"
    mortal.flush()
    assert mortal.stored("final") == b"acknowledged"


@pytest.mark.parametrize("late", [True, False])
def test_a_broken_upload_that_the_store_carried_out_late(
    mortal: Mortal, tmp_path: Path, late: bool
) -> None:
    """Of the rclone that was killed: it has the file's time and less of it. What another node
    wrote meanwhile stays."""
    place = mortal.begin()
    (place / "f").write_bytes(b"acknowledged")
    mortal.mount.kill()
    mortal.mount.start()
    for waiting in mortal.mount.control.queue():
        mortal.mount.control.hurry(waiting)
    deadline = time.monotonic() + 60.0
    while mortal.mount.dirty() and time.monotonic() < deadline:
        mortal.mount.control.busy()
    written = (place / "f").stat().st_mtime_ns
    other = tmp_path / "other"
    other.write_bytes(b"ackno")
    os.utime(other, ns=(written, written if late else written + 10**9))
    mortal.store.rclone("copyto", str(other), f"X:{mortal.name}/f")
    Flush(mortal.mount, cached=True).wait(lambda moved: None, 60.0)
    assert mortal.stored("f") == (b"acknowledged" if late else b"ackno")


def test_a_mount_that_its_agent_could_not_show_any_more(
    mortal: Mortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = mortal.begin()
    mortal.mount.kill()
    with monkeypatch.context() as patched:
        patched.setattr(fuse, "show", lambda source, place: None)  # killed right before
        mortal.mount.start()
    assert mortal.mount.find()
    assert not mortal.mount.shown
    told = threading.Event()
    watch = Watch(mortal.mount, mortal.bucket)
    watch.tell = lambda health: told.set() if health.restarts else None
    try:
        assert told.wait(60.0)
        (place / "f").write_bytes(b"x")
    finally:
        watch.stop()


@pytest.mark.parametrize("taken", [False, True])
def test_a_name_that_a_file_lost_during_its_fsync(
    mortal: Mortal, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """Its upload left an object there, which goes, unless the name is another file's by now: one
    that is in the bucket leaves nothing on this node when it is renamed."""
    mortal.store.write(mortal.name, "other", b"another file's")
    place = mortal.begin()
    upload = Remote.upload

    def renamed(remote: Remote, cache: str, target: str, name: str) -> None:
        upload(remote, cache, target, name)
        if name == "before":
            (place / "before").rename(place / "after")
            if taken:
                (place / "other").rename(place / "before")

    monkeypatch.setattr(Remote, "upload", renamed)
    with open(place / "before", "wb", buffering=0) as file:
        file.write(b"synced")
        mounted.Mounted(str(mortal.mount.directory)).stored(file.fileno(), "/")
        assert mortal.stored("after") == b"synced"
        assert ("before" in mortal.store.listing(mortal.name)) is taken
    if taken:
        assert mortal.stored("before") == b"another file's"


def test_its_end_waits_for_no_copy_in_the_namespace_of_another_job(
    mortal: Mortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a root that is mounted privately, as in containers, unmounting leaves such copies."""
    monkeypatch.setattr(mount, "_LAST_WORDS", 90.0)
    (mortal.begin() / "a").write_bytes(b"acknowledged")
    mortal.flush()
    other = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        began = time.monotonic()
        mortal.sources.buckets.release(mortal.bucket, mortal.place, 0)
        took = time.monotonic() - began
        process.communicate()
    assert took < 45
    assert mortal.mount.find() is None
    assert mortal.stored("a") == b"acknowledged"
