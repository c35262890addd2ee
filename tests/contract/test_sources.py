"""What `data.base.Source` promises, for every kind of mount."""

from __future__ import annotations

import dataclasses
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from moorage.data.base import Bind, Place, SourceError
from moorage.data.scan import scan
from moorage.data.sources import Sources, in_order
from moorage.data.testing import DirectoryServer
from moorage.data.upload import Uploader
from moorage.specs.mounts import Files, HostPath, Mount, Repo


class Node:
    """A node with sources, one attempt's place, and the mounts to try on it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.server = DirectoryServer(base / "server")
        self.sources = Sources(base, self.server.fetch)
        work = base / "attempt/work"
        work.mkdir(parents=True)
        (base / "home").mkdir()
        self.place = Place(base / "attempt", work, base / "home")
        self.code = base / "code"
        self.code.mkdir()
        (self.code / "a.py").write_text("a")

    def files(self, target: str) -> Files:
        found = scan(self.code)
        Uploader(self.server).upload([found])
        return Files(str(self.code), target, found.tree)

    def repo(self, target: str) -> Repo:
        found = scan(self.code)
        Uploader(self.server).upload([found])
        return Repo(source=str(self.code), target=target, tree=found.tree, branch="main")

    def volume(self, target: str) -> HostPath:
        (self.base / "volume").mkdir(exist_ok=True)
        (self.base / "volume/a.py").write_text("a")
        return HostPath(str(self.base / "volume"), target)


KINDS: list[Callable[[Node, str], Mount]] = [Node.files, Node.repo, Node.volume]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> Callable[[Node, str], Mount]:
    return request.param


def test_asking_changes_nothing(node: Node, kind: Callable[[Node, str], Mount]) -> None:
    mount = kind(node, "/srv/x")
    before = sorted(node.base.rglob("*"))
    assert node.sources.of(mount).problems(mount) == ([], [])
    assert sorted(node.base.rglob("*")) == before


def test_an_absolute_target_is_bound(node: Node, kind: Callable[[Node, str], Mount]) -> None:
    mount = kind(node, "/srv/x")
    handle = node.sources.of(mount).prepare(mount, node.place, 2)
    [bind] = handle.binds
    assert bind.target == Path("/srv/x")
    assert (bind.source / "a.py").read_text() == "a"
    assert bind.read_only is False


def test_home_is_expanded(node: Node, kind: Callable[[Node, str], Mount]) -> None:
    mount = kind(node, "~/x")
    [bind] = node.sources.of(mount).prepare(mount, node.place, 0).binds
    assert bind.target == node.base / "home/x"


def test_a_relative_target_is_seen_in_the_working_directory(
    node: Node, kind: Callable[[Node, str], Mount]
) -> None:
    mount = kind(node, "sub/./x")
    handle = node.sources.of(mount).prepare(mount, node.place, 0)
    if handle.binds:
        assert handle.binds[0].target == Path("/workflow/sub/x")
    else:
        assert (node.place.work / "sub/x/a.py").read_text() == "a"


def test_release_is_idempotent_and_needs_no_prepare(
    node: Node, kind: Callable[[Node, str], Mount]
) -> None:
    mount = kind(node, "/srv/x")
    source = node.sources.of(mount)
    source.release(mount, node.place, 0)
    source.prepare(mount, node.place, 0)
    source.release(mount, node.place, 0)
    source.release(mount, node.place, 0)
    assert (node.code / "a.py").exists()


@pytest.mark.parametrize("kind", [Node.files, Node.repo])
def test_targets_in_a_volume_merge_into_it(node: Node, kind: Callable[[Node, str], Mount]) -> None:
    volume = node.base / "volume"
    volume.mkdir()
    (volume / "kept").write_text("kept")
    place = dataclasses.replace(
        node.place,
        binds=(Bind(node.place.work, Path("/workflow")), Bind(volume, Path("/workflow/data"))),
    )
    mount = kind(node, "data/code")
    handle = node.sources.of(mount).prepare(mount, place, 0)
    assert handle.binds == []
    assert (volume / "code/a.py").exists()
    assert (volume / "kept").exists()
    assert list(node.place.work.iterdir()) == []
    read_only = dataclasses.replace(place, binds=(Bind(volume, Path("/workflow"), True),))
    with pytest.raises(SourceError, match="read-only volume"):
        node.sources.of(mount).prepare(mount, read_only, 0)


@pytest.mark.parametrize("mount", [Files("x", "y"), Repo(source="x")])
def test_what_was_not_uploaded(node: Node, mount: Mount) -> None:
    source = node.sources.of(mount)
    assert "x was not uploaded" in source.problems(mount)[0][0]
    with pytest.raises(SourceError, match="x was not uploaded"):
        source.prepare(mount, node.place, 0)


def test_volumes_come_first_and_files_last(node: Node) -> None:
    mounts: list[Mount] = [Files("a", "a"), Repo(), HostPath("/a", "/a"), Files("b", "b")]
    assert [number for number, _ in in_order(mounts)] == [2, 1, 0, 3]


def test_files_say_what_they_brought(node: Node) -> None:
    mount = node.files(".")
    source = node.sources.of(mount)
    assert source.prepare(mount, node.place, 0).detail.startswith(".: 1 file, 1 B, ")
    assert source.prepare(mount, node.place, 0).detail.endswith("1 file, 1 B, nothing fetched")


def attempt(node: Node, mount: HostPath) -> str:
    """What asking and preparing both complain about."""
    source = node.sources.of(mount)
    [problem] = source.problems(mount)[0]
    with pytest.raises(SourceError) as caught:
        source.prepare(mount, node.place, 0)
    assert str(caught.value) == problem
    return problem


def test_a_missing_volume_is_made_where_its_parent_exists(node: Node) -> None:
    path = node.base / "new"
    mount = HostPath(str(path), "/data")
    assert node.sources.of(mount).problems(mount) == ([], [f"{path} is created on this node"])
    old = os.umask(0o002)
    try:
        handle = node.sources.of(mount).prepare(mount, node.place, 0)
    finally:
        os.umask(old)
    assert handle.detail == f"{path} is created on this node"
    assert stat.S_IMODE(path.stat().st_mode) == 0o775
    assert node.sources.of(mount).prepare(mount, node.place, 0).detail == ""


def test_a_named_volume_is_kept_by_the_node(node: Node) -> None:
    mount = HostPath("checkpoints", "/ckpt")
    kept = node.base / "volumes" / "checkpoints"
    note = f"volume checkpoints is created on this node, in {node.base / 'volumes'}"
    assert node.sources.of(mount).problems(mount) == ([], [note])
    assert not kept.exists()
    for detail in (note, ""):
        handle = node.sources.of(mount).prepare(mount, node.place, 0)
        assert (handle.binds, handle.detail) == ([Bind(kept, Path("/ckpt"))], detail)
        (kept / "epoch").touch()


def test_what_the_node_has_is_never_hidden(node: Node) -> None:
    occupied, free = node.base / "occupied", node.base / "free"
    occupied.mkdir()
    free.mkdir()
    (occupied / "precious").touch()
    mount = node.files(str(occupied))
    with pytest.raises(SourceError, match="content would be hidden; name a place below it"):
        node.sources.of(mount).prepare(mount, node.place, 0)
    mount = node.files(str(free))
    [bind] = node.sources.of(mount).prepare(mount, node.place, 0).binds
    assert bind.target == free


def test_volumes_that_cannot_be_had(node: Node) -> None:
    base = node.base
    assert "does not exist on this node" in attempt(node, HostPath(f"{base}/no/x", "/x"))
    assert "must be absolute" in attempt(node, HostPath("a/x", "/x"))
    assert "'..' is not allowed" in attempt(node, HostPath(f"{base}/../x", "/x"))
    assert "drop :ro" in attempt(node, HostPath(f"{base}/x", "/x", read_only=True))
    assert "device, socket or pipe" in attempt(node, HostPath("/dev/null", "/x"))
    (base / "dangling").symlink_to("nowhere")
    assert "link to nothing" in attempt(node, HostPath(f"{base}/dangling", "/x"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(base / "sock"))
        assert "socket" in attempt(node, HostPath(f"{base}/sock", "/x", optional=True))


def test_an_optional_volume_is_skipped(node: Node) -> None:
    mount = HostPath(f"{node.base}/no/x", "/x", optional=True)
    note = f"{node.base}/no/x is not on this node: left out, as it is optional"
    assert node.sources.of(mount).problems(mount) == ([], [note])
    handle = node.sources.of(mount).prepare(mount, node.place, 0)
    assert (handle.binds, handle.detail) == ([], note)
    assert not (node.base / "no").exists()


def test_a_volume_may_be_a_file_read_only(node: Node) -> None:
    mount = HostPath(str(node.code / "a.py"), "etc/a", read_only=True)
    handle = node.sources.of(mount).prepare(mount, node.place, 0)
    assert handle.binds == [Bind(node.code / "a.py", Path("/workflow/etc/a"), True)]
