"""Mounts of an agent that is not root: by fusermount3, seen by jobs of that user only."""

from __future__ import annotations

import json
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from moorage.data.rclone import program
from system.user_harness import User, place
from testbed.stores import StoreServer

pytestmark = pytest.mark.root

UID = 23_417
PROGRAM = """
import json, os, signal, sys, threading
from pathlib import Path
from moorage.data.base import Place
from moorage.data.rclone import fuse, program
from moorage.data.rclone.mount import RcloneMount
from moorage.data.sources import Sources
from moorage.decoding import from_json
from moorage.specs.mounts import Bucket
from moorage.specs.stores.record import Access

access = from_json(sys.stdin.readline(), Access)
bucket = Bucket("/data", store="s3", bucket=sys.argv[1], mode=sys.argv[2])
directory = Path.home() / sys.argv[2] / "attempts" / "1.1.0"
directory.mkdir(parents=True)
assert program.why_not() == "", program.why_not()
sources = Sources(directory.parents[1], lambda digests: iter(()), access=lambda *_: access)
place = Place(directory, directory / "work", Path.home())
[bind] = sources.buckets.prepare(bucket, place, 0).binds
told, again = [], threading.Event()
def tell(health):
    told.append(health.message)
    if health.restarts:
        again.set()
sources.buckets.attend(bucket, place, 0, tell, lambda: False)
(bind.source / "a").write_text("before\\n")
os.kill(RcloneMount(directory / "mounts" / "0").find(), signal.SIGKILL)
assert again.wait(60)
(bind.source / "b").write_text("after\\n")
sources.buckets.flush(bucket, place, 0, lambda moved: None, 60.0)
sources.buckets.release(bucket, place, 0)
left = [line for line in open("/proc/self/mountinfo") if str(directory) in line]
print(json.dumps([told, left, RcloneMount(directory / "mounts" / "0").find()]))
"""


class FuseUser(User):
    """One who may open /dev/fuse, has a name, and finds rclone: nobody else sees that."""

    def __init__(self, uid: int, place: Path) -> None:
        super().__init__(uid, place)
        found = shutil.which("rclone") or Path(sysconfig.get_path("scripts"), "rclone")
        given = place / "given"
        given.mkdir()
        lines = [
            f"mount -t tmpfs -o dev,mode=755 none {given}",
            f"mknod -m 666 {given}/fuse c 10 229",
            f"mount --bind {given}/fuse /dev/fuse",
            f"cp /etc/passwd {given}/passwd",
            f"echo tester:x:{uid}:{uid}::{self.home}:/bin/sh >> {given}/passwd",
            f"mount --bind {given}/passwd /etc/passwd",
            f"touch {given}/rclone",
            f"mount --bind {found} {given}/rclone",
            f"export PATH={given}:$PATH",
        ]
        first, rest = self._script.split("\n", 1)
        self._script = "\n".join([first, *lines, rest])


@pytest.fixture
def user() -> Iterator[FuseUser]:
    if why := program.why_not():
        pytest.skip(why)
    if not Path(program.fusermount() or "/").stat().st_mode & 0o4000:
        pytest.skip("fusermount3 is not setuid: ordinary users cannot mount here")
    with place() as directory:
        yield FuseUser(UID, directory)


@pytest.mark.parametrize("mode", ["mount", "cached"])
def test_mounted_mended_flushed_and_gone(user: FuseUser, seaweed: StoreServer, mode: str) -> None:
    bucket = seaweed.make_bucket()
    with user.popen(user.python, "-c", PROGRAM, bucket, mode) as process:
        out, err = process.communicate(msgspec.json.encode(seaweed.access).decode() + "\n", 200)
    assert process.returncode == 0, err
    told, left, alive = json.loads(out)
    assert told == ["restarted once: its process ended; what runs sees it no more (ENOTCONN)"]
    assert (left, alive) == ([], None)
    assert seaweed.read(bucket, "a") == b"before\n"
    assert seaweed.read(bucket, "b") == b"after\n"
