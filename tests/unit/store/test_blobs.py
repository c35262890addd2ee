"""What the contract suite cannot show: a real full disk, and the order of things on it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from contract.blob_suite import DAY, World, name, noise, pack
from contract.crash_programs import contents
from moorage.errors import Unavailable
from moorage.store.base import Statement, StoreBroken
from moorage.store.sqlite import SqliteStore, open_sqlite


def opened(directory: Path) -> SqliteStore:
    return open_sqlite(directory / "moorage.db")


def test_no_row_goes_before_its_file_and_no_file_before_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every commit, each pack of the index has its file."""
    world = World(tmp_path, opened)
    commits = 0

    def checked(batch: Sequence[Statement]) -> None:
        nonlocal commits
        commits += 1
        write(batch)
        assert {row["id"] for row in world.store.read("packs")} <= set(world.stored())

    write = world.store.write
    monkeypatch.setattr(world.store, "write", checked)
    kept = noise(1000)
    world.blobs.add_pack(pack(noise(5000), kept))
    world.blobs.add_pack(pack(noise(5000)))
    world.refer(1, (name(kept), "blob"))
    world.now += 2 * DAY
    assert world.blobs.collect(world.now, DAY).blobs == 2
    assert world.blobs.read(name(kept)) == kept
    assert len(world.stored()) == 1
    world.close()
    assert commits >= 6


def test_pack_files_are_private(tmp_path: Path) -> None:
    world = World(tmp_path, opened)
    world.blobs.add_pack(pack(b"secret"))
    [file] = (tmp_path / "packs").glob("*/*.pack")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    world.close()


def test_a_full_disk_is_said_with_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, opened)
    usage = shutil.disk_usage(world.directory)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=12345))
    with pytest.raises(Unavailable, match="12 KB free"):
        world.blobs.add_pack(pack(b"one"))
    with pytest.raises(Unavailable, match="12 KB free"):
        world.blobs.append_part(name(b"one"), 0, 3, b"one")
    assert world.stored() == []
    world.close()


def test_a_broken_store_acknowledges_no_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, opened)

    def broken(batch: Sequence[Statement]) -> None:
        raise StoreBroken("gone")

    monkeypatch.setattr(world.store, "write", broken)
    with pytest.raises(StoreBroken, match="gone"):
        world.blobs.add_pack(pack(*contents(1)))
    world.close()


@pytest.mark.root
def test_a_full_disk_refuses_uploads_and_keeps_what_is_there(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=70m", "tmpfs", str(small)], check=True)
    try:
        world = World(small, opened)
        kept = noise(1_000_000)
        world.blobs.add_pack(pack(kept))
        with pytest.raises(Unavailable, match="disk is full"):
            world.blobs.add_pack(pack(noise(6_000_000)))
        big = noise(4_000_000)
        with pytest.raises(Unavailable, match="disk is full"):
            world.blobs.append_part(name(big), 0, len(big), big[:1000])
        # The reserve is not a promise of the kernel: something else may eat it.
        monster = os.open(small / "monster", os.O_WRONLY | os.O_CREAT, 0o600)
        os.posix_fallocate(monster, 0, os.statvfs(small).f_bavail * 4096)
        os.close(monster)
        with pytest.raises(Unavailable):
            world.blobs.add_pack(pack(b"small"))
        assert world.blobs.read(name(kept)) == kept
        (small / "monster").unlink()
        assert world.blobs.add_pack(pack(b"small")) == 1
        assert len(world.stored()) == 2
        world.close()
    finally:
        subprocess.run(["umount", str(small)], check=True)
