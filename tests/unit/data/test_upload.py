"""Uploads send what the server lacks, once, whatever interrupts them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moorage.data.hashing import hash_file
from moorage.data.scan import scan
from moorage.data.testing import DirectoryServer
from moorage.data.upload import Blob, Progress, Uploader
from moorage.errors import InvalidInput, Unavailable
from moorage.ids import Digest
from moorage.protocol import packs
from moorage.protocol.api import PartReply


def test_the_first_upload_sends_all_the_second_asks_once(harbour, project: Path) -> None:
    found = scan(project)
    seen: list[Progress] = []
    done = Uploader(harbour.server, progress=seen.append).upload([found])
    assert (done.files, done.files_total) == (5, 5)
    assert done.bytes == done.bytes_total == found.size + len(found.encoded)
    assert 0 < done.sent < done.bytes
    assert seen[-1] == done
    for digest in found.contents:
        assert harbour.server.data(digest) == Path(found.contents[digest][0]).read_bytes()
    harbour.server.calls.clear()
    assert harbour.uploader.upload([found]) == Progress()
    assert harbour.server.calls == {"missing": 1}


def test_only_what_changed_is_sent(harbour, project: Path) -> None:
    harbour.sent(project)
    (project / "train.py").write_text("print('ho')\n")
    found = scan(project)
    assert harbour.uploader.wanted([found]) == Progress(files_total=1, bytes_total=12)
    assert harbour.uploader.upload([found]).files == 2


def test_single_blobs_travel_with_trees(harbour, project: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(b"pack" * 1000)
    identity, digest = hash_file(str(tmp_path / "pack"))
    blob = Blob(digest, (str(tmp_path / "pack"), identity))
    assert harbour.uploader.wanted([], [blob]).bytes_total == 4000
    harbour.uploader.upload([scan(project)], [blob])
    assert harbour.server.data(digest) == b"pack" * 1000
    assert harbour.uploader.wanted([scan(project)], [blob]) == Progress()


def test_files_that_changed_since_the_scan_are_all_named(harbour, project: Path) -> None:
    found = scan(project)
    (project / "train.py").write_text("other\n")
    (project / "run.sh").unlink()
    with pytest.raises(InvalidInput) as caught:
        harbour.uploader.upload([found])
    lines = sorted(str(problem) for problem in caught.value.problems)
    assert "run.sh: No such file or directory" in lines[0]
    assert "train.py: it changed while it was uploaded" in lines[1]
    assert harbour.server.missing([], [found.tree]).trees == [found.tree]


class Flaky(DirectoryServer):
    """Breaks after some packs and parts."""

    left = 2

    def put_pack(self, pack: bytes) -> int:
        self._spend()
        return super().put_pack(pack)

    def put_part(self, digest: Digest, offset: int, size: int, data: bytes) -> PartReply:
        self._spend()
        return super().put_part(digest, offset, size, data)

    def _spend(self) -> None:
        if not self.left:
            raise Unavailable("the line is cut")
        self.left -= 1


def test_an_interrupted_upload_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.data.packing.PACK_TARGET", 3000)
    for number in range(10):
        (tmp_path / f"tree{number}").write_bytes(os.urandom(2000))
    root = tmp_path / "root"
    root.mkdir()
    for number in range(10):
        (tmp_path / f"tree{number}").rename(root / f"f{number}")
    server = Flaky(tmp_path / "server")
    found = scan(root)
    with pytest.raises(Unavailable, match="cut"):
        Uploader(server, threads=1).upload([found])
    assert len(server.missing(list(found.contents), []).digests) == 6
    server.left = 100
    assert Uploader(server, threads=1).upload([found]).files == 7
    assert server.missing([], [found.tree]).trees == []


def test_a_large_file_resumes_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage.data.upload.CHUNK_LIMIT", 1000)
    monkeypatch.setattr("moorage.data.upload._PART", 700)
    data = os.urandom(3000)
    (tmp_path / "large").write_bytes(data)
    server = Flaky(tmp_path / "server")
    found = scan(tmp_path / "large")
    with pytest.raises(Unavailable, match="cut"):
        Uploader(server).upload([found])
    server.left = 100
    done = Uploader(server).upload([found])
    assert done.bytes == done.bytes_total
    assert done.sent < 3000 - 1400 + 500
    assert server.data(next(iter(found.contents))) == data


def test_a_large_file_that_changes_is_named(
    harbour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.data.upload.CHUNK_LIMIT", 1000)
    (tmp_path / "large").write_bytes(os.urandom(3000))
    found = scan(tmp_path / "large")
    (tmp_path / "large").write_bytes(os.urandom(3000))
    with pytest.raises(InvalidInput, match="large: it changed while it was uploaded"):
        harbour.uploader.upload([found])


def test_a_server_that_takes_nothing_ends_the_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stubborn(DirectoryServer):
        def put_part(self, digest: Digest, offset: int, size: int, data: bytes) -> PartReply:
            return PartReply(offset, False)

        def put_pack(self, pack: bytes) -> int:
            return 0

    (tmp_path / "file").write_bytes(b"x" * 2000)
    server = Stubborn(tmp_path / "server")
    with pytest.raises(Unavailable, match="stored 0 of 1"):
        Uploader(server).upload([scan(tmp_path / "file")])
    monkeypatch.setattr("moorage.data.upload.CHUNK_LIMIT", 1000)
    with pytest.raises(Unavailable, match="does not take"):
        Uploader(server).upload([scan(tmp_path / "file")])


def test_empty_and_equal_files(harbour, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).write_bytes(b"")
        (root / f"{name}2").write_bytes(b"same")
    assert harbour.uploader.upload([scan(root)]).files == 3
    harbour.cache.materialize(scan(root).tree, tmp_path / "out")
    assert sorted(p.read_bytes() for p in (tmp_path / "out").iterdir()) == [
        b"",
        b"",
        *[b"same"] * 2,
    ]


def test_packs_are_bounded(harbour, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for number in range(5):
        (root / f"f{number}").write_bytes(os.urandom(3 * 1024 * 1024))
    sizes: list[int] = []
    put = harbour.server.put_pack

    def watched(pack: bytes) -> int:
        sizes.append(len(pack))
        return put(pack)

    harbour.server.put_pack = watched
    harbour.uploader.upload([scan(root)])
    assert max(sizes) < packs.PACK_TARGET + 4 * 1024 * 1024
