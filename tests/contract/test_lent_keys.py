"""Stores that lend keys for a time: rclone, obstore and SeaweedFS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from moorage.data.base import Place
from moorage.data.objects.bucket import open_bucket
from moorage.data.rclone import program
from moorage.data.sources import Sources
from moorage.specs.mounts import Bucket
from moorage.specs.stores.record import Access
from testbed.stores import StoreServer

PATIENCE = 60.0


class Lender:
    """Right keys at first, then wrong ones, and right ones again when those were taken."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._times = 0
        self.refused = threading.Event()

    def __call__(self, store: str, key: str) -> Access:
        self._times += 1
        secrets = dict(self._access.secrets)
        if self._times == 2:
            secrets["access_key_id"] = "nobody"
        elif self._times > 2:
            assert self.refused.wait(PATIENCE)
        lasts = 3600.0 if self._times > 2 else 1.0
        return msgspec.structs.replace(self._access, secrets=secrets, expires=time.time() + lasts)


def until(wanted: bool, write: Callable[[], None]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            write()
        except OSError:
            if not wanted:
                return
        else:
            if wanted:
                return
    pytest.fail("nothing has changed")


@pytest.mark.root
def test_a_mount_outlives_its_keys(tmp_path: Path, seaweed: StoreServer) -> None:
    if why := program.why_not():
        pytest.skip(why)
    lender = Lender(seaweed.access)
    sources = Sources(tmp_path, lambda digests: iter(()), access=lender).buckets
    bucket = Bucket("/data", store="s3", bucket=seaweed.make_bucket(), mode="mount")
    directory = tmp_path / "attempts" / "1.1.0"
    directory.mkdir(parents=True)
    place = Place(directory, directory / "work", tmp_path)
    found = sources.prepare(bucket, place, 0).binds[0].source
    try:
        own = directory / "mounts" / "0"
        secret = seaweed.access.secrets["secret_access_key"]
        assert secret not in (own / "how").read_text()
        assert secret in (own / "keys").read_text()
        assert {(own / name).stat().st_mode & 0o777 for name in ("keys", "keys.ini")} == {0o600}
        until(False, lambda: (found / "refused").write_text("2"))
        lender.refused.set()
        until(True, lambda: (found / "last").write_text("3"))
        assert seaweed.read(bucket.bucket, "last") == b"3"
    finally:
        lender.refused.set()
        sources.release(bucket, place, 0)


def test_objects_are_moved_with_the_keys_that_last(seaweed: StoreServer) -> None:
    right = msgspec.structs.replace(seaweed.access, expires=time.time() + 3600)
    over = {**right.secrets, "access_key_id": "nobody"}
    ended = msgspec.structs.replace(right, secrets=over, expires=time.time() + 1)
    name = seaweed.make_bucket()
    asked: list[int] = []

    def renew() -> Access:
        asked.append(1)
        return right

    bucket = open_bucket(ended, name, patience=5, renew=renew)
    bucket.put("k", b"1")
    assert (bucket.get("k"), seaweed.read(name, "k")) == (b"1", b"1")
    assert asked == [1]
