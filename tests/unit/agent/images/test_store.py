"""Images of files: read strictly, unpacked once, kept within a budget."""

from __future__ import annotations

import gzip
import json
import os
import struct
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

import imagebuild
from imagebuild import layer, member
from moorage.agent.images.archive import squashfs_offset
from moorage.agent.images.store import Image, Images
from moorage.agent.node import isolation
from moorage.data.base import SourceError
from moorage.protocol.container import Container


@pytest.fixture(autouse=True)
def _containers(tmp_path: Path) -> None:
    if (why := isolation.probe(tmp_path).containers) is not None:
        pytest.skip(why)


class Node:
    """A node's images, and attempts that use them."""

    def __init__(self, place: Path, limit: int | None = None) -> None:
        self.place = place
        self.said: list[str] = []
        self.images = Images(place / "images", place / "attempts", limit)

    def attempt(self, number: int) -> Path:
        path = self.place / "attempts" / str(number)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def get(self, name: str, number: int = 1) -> Image:
        return self.images.prepare(Container(name), self.attempt(number), self.said.append)

    @property
    def roots(self) -> list[Path]:
        return sorted((self.place / "images" / "roots").glob("*"))


def docker(tmp_path: Path, *layers: bytes, **wanted: Any) -> str:
    return f"docker-archive:{imagebuild.docker_archive(tmp_path / 'i.tar', layers, **wanted)}"


def unpacked(tmp_path: Path, *layers: bytes) -> Path:
    root = Node(tmp_path).get(docker(tmp_path, *layers)).root
    assert root is not None
    return root


def test_settings_and_content_of_both_kinds_of_archives(tmp_path: Path) -> None:
    node = Node(tmp_path)
    layers = [layer(member("a", b"1")), layer(member("b", b"2"))]
    wanted: dict[str, Any] = {"Env": ["A=1"], "Cmd": ["x"], "User": "7", "WorkingDir": "/w"}
    names = [docker(tmp_path, *layers, **wanted)]
    presses: list[tuple[str, Callable[[bytes], bytes]]] = [
        ("plain", bytes), ("gzip", gzip.compress), ("zstd", zstd.compress)
    ]  # fmt: skip
    for name, press in presses:
        path = tmp_path / f"{name}.tar"
        imagebuild.oci_archive(path, layers, press, Name=name, **wanted)
        names.append(f"oci-archive:{path}")
    for name in names:
        image = node.get(name)
        assert image.root is not None
        assert [(image.root / one).read_text() for one in "ab"] == ["1", "2"]
        assert (image.settings.env, image.settings.cmd) == (["A=1"], ["x"])
        assert (image.settings.user, image.settings.workdir) == ("7", "/w")
    assert len(node.roots) == 4


def test_later_layers_replace_and_remove(tmp_path: Path) -> None:
    directory = {"type": tarfile.DIRTYPE, "mode": 0o750}
    root = unpacked(
        tmp_path,
        layer(
            member("usr/lib/old", b"old"),
            member("lib", type=tarfile.SYMTYPE, linkname="usr/lib"),
            member("gone", b"x"),
            member("emptied/x", b"x"),
            member("emptied/deep/y", b"y"),
            member("file", b"a file"),
        ),
        layer(
            member("lib/new", b"new"),
            member("same", type=tarfile.LNKTYPE, linkname="usr/lib/new"),
            member(".wh.gone"),
            member("emptied/z", b"z"),
            member("emptied/.wh..wh..opq"),
            member("file", **directory),
            member("file/inside", b"1", mode=0o4755, mtime=1_000_000),
        ),
    )
    assert (root / "usr/lib/new").read_text() == "new"
    assert (root / "lib").is_symlink()
    assert (root / "same").stat().st_ino == (root / "usr/lib/new").stat().st_ino
    assert not (root / "gone").exists()
    assert [path.name for path in (root / "emptied").iterdir()] == ["z"]
    status = (root / "file/inside").stat()
    assert (status.st_mode & 0o7777, int(status.st_mtime)) == (0o4755, 1_000_000)


def test_a_layer_does_not_reach_out_of_the_image(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = unpacked(
        tmp_path,
        layer(
            member("way", type=tarfile.SYMTYPE, linkname=str(outside)),
            member("up", type=tarfile.SYMTYPE, linkname="../../../../../../../../" + str(outside)),
            member(f"{outside}/made/below", b"inside"),
            member("way/x", b"x"),
            member("up/y", b"y"),
            member("device", type=tarfile.CHRTYPE, devmajor=1, devminor=1),
        ),
    )
    assert not list(outside.iterdir())
    assert sorted(p.name for p in Path(f"{root}{outside}").iterdir()) == ["made", "x", "y"]
    assert not (root / "device").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (layer(member("../x", b"")), "the image is damaged: ../x leads out of the image"),
        (layer(member("a/../../x", b"")), "leads out of the image"),
        (b"no tar at all" * 100, "a layer cannot be read"),
        (gzip.compress(layer(member("a", os.urandom(9999))))[:-500], "a layer cannot be read"),
        (layer(member("b", type=tarfile.LNKTYPE, linkname="none")), "No such file"),
    ],
)
def test_bad_layers_leave_nothing(tmp_path: Path, content: bytes, message: str) -> None:
    node = Node(tmp_path)
    with pytest.raises(SourceError, match=message):
        node.get(docker(tmp_path, content))
    assert not node.roots


def test_other_content_than_promised_is_refused(tmp_path: Path) -> None:
    good, bad = layer(member("a", b"1")), layer(member("a", b"2"))
    path = imagebuild.docker_archive(tmp_path / "i.tar", [good])
    path.write_bytes(path.read_bytes().replace(good, bad))
    with pytest.raises(SourceError, match="a layer is not what it should be"):
        Node(tmp_path).get(f"docker-archive:{path}")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "damaged: it lacks manifest.json"),
        ({"manifest.json": b"{"}, "it is no JSON object"),
        ({"manifest.json": b"[]"}, "must hold one image"),
        ({"manifest.json": b"[{}]"}, "is damaged: 'Layers'"),
        ({"manifest.json": b'[{"Layers": ["x"]}]'}, "it lacks x"),
    ],
)
def test_damaged_archives(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    path = imagebuild.tar(tmp_path / "i.tar", files)
    with pytest.raises(SourceError, match=message):
        Node(tmp_path).get(f"docker-archive:{path}")


def test_images_for_other_machines(tmp_path: Path) -> None:
    entry = {"digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": "z80"}}
    content = json.dumps({"manifests": [entry]}).encode()
    path = imagebuild.tar(tmp_path / "i.tar", {"index.json": content})
    with pytest.raises(SourceError, match=r"has nothing for linux/\w+; it has linux/z80"):
        Node(tmp_path).get(f"oci-archive:{path}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("docker-archive:/none.tar", "/none.tar does not exist on this node"),
        ("/none", "/none does not exist on this node"),
        ("docker-archive:/etc/passwd", "no tar archive"),
        ("/etc/passwd", "neither a squashfs nor a SIF image"),
    ],
)
def test_what_is_no_image(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        Node(tmp_path).get(name)


def test_directories_are_used_where_they_lie(tmp_path: Path) -> None:
    image = Node(tmp_path).get(str(tmp_path))
    assert (image.root, image.settings.cmd) == (tmp_path, [])


def test_the_file_system_in_a_sif_file(tmp_path: Path) -> None:
    path = tmp_path / "i.sif"
    head = struct.pack("<32s10s3s3s16sqqqqqqqq", b"#!", b"SIF_MAGIC\0", b"01", b"02", b"", 0, 0, 0,
                       2, 128, 1170, 4096, 4)  # fmt: skip
    other = struct.pack(
        "<i?IIIqqqqqqq128s384s", 0x4003, True, 1, 1, 0, 9, 1, 1, 0, 0, 0, 0, b"", b""
    )
    extra = struct.pack("<ii", 1, 2)
    system = struct.pack("<i?IIIqqqqqqq128s384s", 0x4004, True, 2, 1, 0, 4096, 4, 4, 0, 0, 0, 0,
                         b"", extra)  # fmt: skip
    path.write_bytes((head + other + system).ljust(4096, b"\0") + b"hsqs")
    assert squashfs_offset(path) == 4096


def test_many_at_once_unpack_it_once(tmp_path: Path) -> None:
    node = Node(tmp_path)
    name = docker(tmp_path, layer(member("a", b"1")))
    threads = [threading.Thread(target=node.get, args=(name, number)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(node.said) == 1
    assert len(node.roots) == 1


def test_the_longest_unused_go_when_it_is_too_much(tmp_path: Path) -> None:
    node = Node(tmp_path, limit=2500)
    for number in range(4):
        node.get(docker(tmp_path, layer(member("a", bytes([number]) * 1000))), number)
        (tmp_path / "i.tar").unlink()
        used = (node.attempt(number) / "image" / "of").readlink()
        os.utime(used / "image.json", (number, number))
    assert len(node.roots) == 4  # all in use
    for number in (0, 1, 2):
        (node.attempt(number) / "image" / "of").unlink()
    node.get(docker(tmp_path, layer(member("a", b"x" * 1000))), 9)
    assert len(node.roots) == 2


def test_what_a_dead_agent_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "moorage.agent.images.store._sync", lambda root: None
    )  # a crash came first
    node = Node(tmp_path)
    node.get(docker(tmp_path, layer(member("a", b"1"))))
    half = node.roots[0].with_name(".half")
    (half / "rootfs").mkdir(parents=True)
    node.images.tidy()
    assert not half.exists()
    assert len(node.roots) == 1
    kept = node.roots[0] / "image.json"
    kept.write_bytes(kept.read_bytes().replace(b'"boot":"', b'"boot":"other-'))
    node.images.tidy()
    assert not node.roots


def test_image_files_need_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "i.squashfs"
    path.write_bytes(b"hsqs")
    node = Node(tmp_path)
    monkeypatch.setattr("moorage.agent.keeper.launching.may_mount", lambda: False)
    with pytest.raises(SourceError, match="only root can mount"):
        node.get(str(path))
    assert "only root can mount" in node.images.problem(Container(str(path)))
    assert node.images.problem(Container(str(tmp_path))) == ""
