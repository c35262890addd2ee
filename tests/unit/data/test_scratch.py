"""Scratch directories are removed whatever is in them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moorage.data import scratch
from moorage.data.base import SourceError


def test_removes_read_only_directories_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("")
    doomed = tmp_path / "doomed"
    (doomed / "locked/inner").mkdir(parents=True)
    (doomed / "locked/inner/file").write_text("")
    (doomed / "link").symlink_to(tmp_path / "precious")
    os.mkfifo(doomed / "pipe")
    (doomed / "locked/inner").chmod(0)
    (doomed / "locked").chmod(0o500)
    scratch.remove(doomed)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["precious"]
    assert (tmp_path / "precious/file").exists()


def test_a_link_itself_is_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "link").symlink_to("precious")
    scratch.remove(tmp_path / "link")
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_very_deep_trees(tmp_path: Path) -> None:
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    fd = os.open(doomed, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deeper", dir_fd=fd)
        below = os.open("deeper", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    scratch.remove(doomed)
    assert list(tmp_path.iterdir()) == []


def test_gone_is_fine(tmp_path: Path) -> None:
    scratch.remove(tmp_path / "never")
    scratch.remove(tmp_path / "no/such/parent")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_nothing_is_removed_below_a_mount(tmp_path: Path) -> None:
    doomed = tmp_path / "doomed with space"
    (doomed / "mnt").mkdir(parents=True)
    (doomed / "file").write_text("")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("")
    mount = ["mount", "--bind", str(tmp_path / "precious"), str(doomed / "mnt")]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this container does not allow mounts")
    try:
        assert scratch.mounts_below(doomed) == [str(doomed / "mnt")]
        with pytest.raises(SourceError, match="unmount it first"):
            scratch.remove(doomed)
        assert (doomed / "file").exists()
    finally:
        subprocess.run(["umount", str(doomed / "mnt")], check=True)
    scratch.remove(doomed)
    assert (tmp_path / "precious/file").exists()


@contextmanager
def overlay(place: Path) -> Iterator[Path]:
    """Of two filesystems, so that files have another device than directories."""
    for name in ("lower", "layers", "merged"):
        (place / name).mkdir()
    script = (
        'mount -t tmpfs none "$1/layers" && mkdir "$1/layers/upper" "$1/layers/work" || exit; '
        'mount -t overlay -o "xino=off,lowerdir=$1/lower,upperdir=$1/layers/upper,'
        'workdir=$1/layers/work" none "$1/merged"'
    )
    command = ["sh", "-c", script, "sh", str(place)]
    made = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        if not made:
            pytest.skip("there can be no overlay here")
        yield place / "merged"
    finally:
        for name in ("merged", "layers"):
            subprocess.run(["umount", str(place / name)], check=False, capture_output=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_files_whose_device_is_not_their_directorys_are_removed(tmp_path: Path) -> None:
    with overlay(tmp_path) as merged:
        doomed = merged / "doomed"
        (doomed / "sub").mkdir(parents=True)
        (doomed / "sub/file").write_text("")
        assert (doomed / "sub/file").stat().st_dev != doomed.stat().st_dev
        scratch.remove(doomed)
        assert not doomed.exists()
