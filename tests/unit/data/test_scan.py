"""Scanning a tree: same content, same digest; everything that cannot be uploaded is named."""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path

import pytest
from blake3 import blake3

from moorage.data import digests, hashing
from moorage.data.digests import DigestCache
from moorage.data.hashing import FileChanged, hash_file
from moorage.data.scan import scan
from moorage.errors import InvalidInput
from moorage.protocol import tree

OLD = 1_600_000_000


def age(root: Path) -> None:
    """Make every file look as if it was written long ago; ctime cannot be set, so tests that
    need the cache move its clock instead."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (OLD, OLD))


def problems(path: Path, **more) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        scan(path, **more)
    return [str(problem) for problem in caught.value.problems]


def test_a_manifest_names_everything(project: Path) -> None:
    found = scan(project)
    entries = tree.decode(found.encoded).entries
    assert [(e.path, e.kind, oct(e.mode), e.target) for e in entries] == [
        ("dangling", "link", "0o0", "nowhere"),
        ("pkg", "dir", "0o755", ""),
        ("pkg/a.b", "file", "0o644", ""),
        ("pkg/deep", "dir", "0o555", ""),
        ("pkg/deep/data.bin", "file", "0o644", ""),
        ("pkg/deep/empty", "dir", "0o755", ""),
        ("pkg/link", "link", "0o0", "../train.py"),
        ("run.sh", "file", "0o755", ""),
        ("train.py", "file", "0o644", ""),
    ]
    assert found.tree == blake3(found.encoded).hexdigest()
    assert (found.files, found.size) == (4, 256 * 9000 + 22)
    for digest, (path, _) in found.contents.items():
        assert blake3(Path(path).read_bytes()).hexdigest() == digest


def test_times_do_not_count_and_modes_do(project: Path) -> None:
    first = scan(project).tree
    age(project)
    assert scan(project).tree == first
    (project / "run.sh").chmod(0o700)
    assert scan(project).tree != first


def test_a_single_file(project: Path) -> None:
    found = scan(project / "run.sh")
    [entry] = tree.decode(found.encoded).entries
    assert (entry.path, entry.kind, entry.mode) == (".", "file", 0o755)


def test_the_path_given_may_be_a_link(project: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(project)
    assert scan(tmp_path / "alias").tree == scan(project).tree


def test_links_out_of_the_tree_are_refused_all_at_once(project: Path, tmp_path: Path) -> None:
    (project / "one").symlink_to("/etc/passwd")
    (project / "two").symlink_to("../elsewhere")
    (project / "pkg/three").symlink_to("../../elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (project / "fine").symlink_to("pkg/../train.py")
    # Right only while the directory is called as it is here; a node refuses it.
    (project / "four").symlink_to(f"../{project.name}/train.py")
    found = problems(project)
    assert len(found) == 4
    assert any("one: link to the absolute path /etc/passwd; make it relative" in f for f in found)
    assert any("pkg/three: link out of the tree, to ../../elsewhere" in f for f in found)


def test_special_files_are_left_out_with_a_note(project: Path) -> None:
    before = scan(project).tree
    os.mkfifo(project / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(project / "sock"))
        found = scan(project)
    assert found.tree == before
    assert sorted(note.rsplit("/", 1)[1] for note in found.notes) == [
        "pipe is a pipe; left out",
        "sock is a socket; left out",
    ]


def test_names_must_be_utf8(project: Path) -> None:
    (Path(os.fsdecode(os.fsencode(project) + b"/bad\xff"))).write_text("")
    [found] = problems(project)
    assert "bad\\xff: the name is not valid UTF-8; rename it" in found


def test_the_limit_is_checked_before_anything_is_read(project: Path) -> None:
    [found] = problems(project, limit=1000)
    assert "pkg/deep/data.bin: 2304000 bytes are more than the upload limit of 1000" in found
    assert scan(project, limit=2304000).files == 4


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    assert problems(tmp_path / "no") == [f"{tmp_path}/no: no such file or directory"]
    os.mkfifo(tmp_path / "pipe")
    assert problems(tmp_path / "pipe") == [f"{tmp_path}/pipe: not a file or directory"]


def test_everything_unreadable_is_listed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> hashing.Known:
        if path.endswith((".py", ".sh")):
            raise PermissionError(13, "Permission denied", path)
        return hash_file(path)

    monkeypatch.setattr("moorage.data.scan.hash_file", refuse)
    assert [line.rsplit("/", 1)[1] for line in sorted(problems(project))] == [
        "run.sh: Permission denied",
        "train.py: Permission denied",
    ]


def test_ignored_files_are_not_looked_at(project: Path) -> None:
    before = scan(project).tree
    (project / ".git").mkdir()
    (project / ".git/config").write_text("token")
    assert scan(project).tree == before
    (project / ".moorageignore").write_text("*.pem\n.moorageignore\ncache/\n")
    (project / "key.pem").write_text("secret")
    (project / "cache").mkdir()
    (project / "cache/link").symlink_to("/etc")
    assert scan(project).tree == before


def test_an_unchanged_tree_is_not_read_again(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DigestCache(tmp_path / "cache/digests.db")
    read: list[str] = []

    def reading(path: str) -> hashing.Known:
        read.append(Path(path).name)
        return hash_file(path)

    monkeypatch.setattr("moorage.data.scan.hash_file", reading)
    wait = digests.now() + 3 * 10**9
    monkeypatch.setattr(digests, "now", lambda: wait)
    first = scan(project, cache)
    assert len(read) == 4
    assert scan(project, cache).tree == first.tree
    assert len(read) == 4
    (project / "train.py").write_text("print('ho')\n")
    assert scan(project, cache).tree != first.tree
    assert read[4:] == ["train.py"]
    (project / "run.sh").unlink()
    scan(project, cache)
    assert len(cache.known(str(project))) == 3


def test_fresh_files_are_not_believed_by_their_times(project: Path, tmp_path: Path) -> None:
    cache = DigestCache(tmp_path / "digests.db")
    scan(project, cache)
    assert cache.known(str(project)) == {}


def test_a_damaged_cache_is_replaced(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "digests.db"
    path.write_bytes(b"not a database at all" * 100)
    cache = DigestCache(path)
    wait = digests.now() + 3 * 10**9
    monkeypatch.setattr(digests, "now", lambda: wait)
    assert scan(project, cache).tree == scan(project).tree
    assert len(cache.known(str(project))) == 4


def test_a_locked_cache_is_done_without(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "digests.db"
    DigestCache(path).known("/")
    holder = sqlite3.connect(path, isolation_level=None)
    try:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        cache = DigestCache(path, patience=0.05)
        assert scan(project, cache).tree == scan(project).tree
    finally:
        holder.close()


def test_one_tree_does_not_see_its_neighbours_digests(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path / "digests.db")
    known = hashing.Known((1, OLD, OLD, 1), hash_file(__file__).digest)
    names = ["/a/b", "/a/b/c", "/a/bc", "/a/b.c", "/a"]
    cache.remember(dict.fromkeys(names, known), [], digests.now())
    assert set(cache.known("/a/b")) == {"/a/b", "/a/b/c"}


def test_a_file_that_keeps_changing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "busy"
    path.write_bytes(b"x")
    real = os.read

    def read(fd: int, count: int) -> bytes:
        data = real(fd, count)
        with open(path, "ab") as file:
            file.write(b"y")
        return data

    monkeypatch.setattr(hashing.os, "read", read)
    with pytest.raises(FileChanged, match="changes while it is read"):
        hash_file(str(path))


@pytest.mark.parametrize("size", [0, 1, 4 * 1024 * 1024, 4 * 1024 * 1024 + 1, 9_000_000])
def test_digests_of_all_sizes(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    assert hash_file(str(tmp_path / "file")).digest == blake3(data).hexdigest()


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        hash_file(str(tmp_path / "pipe"))
