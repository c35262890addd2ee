"""Trees laid out on a node."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pytest
from blake3 import blake3

from moorage.data.base import SourceError
from moorage.data.blobs import BlobCache
from moorage.ids import Digest
from moorage.protocol import packs, tree
from moorage.protocol.tree import Entry, Manifest


def listing(root: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """Path to mode and content of everything below `root`."""
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        content: bytes | str | None = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        mode = 0 if path.is_symlink() else stat.S_IMODE(status.st_mode)
        found[str(path.relative_to(root))] = (mode, content)
    return found


def store(harbour, entries: list[Entry]) -> Digest:
    """Put a handmade manifest on the server, with a file `hello` to refer to."""
    blobs = [b"hello", tree.encode(Manifest(entries))]
    pack = b""
    for data in blobs:
        from backports import zstd

        frame = zstd.compress(data)
        pack += packs.header(Digest(blake3(data).hexdigest()), len(frame), len(data)) + frame
    harbour.server.put_pack(pack)
    return Digest(blake3(blobs[1]).hexdigest())


HELLO = Digest(blake3(b"hello").hexdigest())


def file(path: str) -> Entry:
    return Entry(path, "file", 0o644, HELLO, 5)


def test_a_tree_comes_out_as_it_went_in(harbour, project: Path, tmp_path: Path) -> None:
    laid = harbour.cache.materialize(harbour.sent(project), tmp_path / "out")
    assert listing(tmp_path / "out") == listing(project)
    assert (laid.files, laid.bytes) == (4, 256 * 9000 + 12 + 10)
    assert laid.fetched > 0


def test_the_second_time_nothing_is_fetched(harbour, project: Path, tmp_path: Path) -> None:
    sent = harbour.sent(project)
    harbour.cache.materialize(sent, tmp_path / "one")
    laid = harbour.cache.materialize(sent, tmp_path / "two")
    assert str(laid) == "4 files, 2.2 MB, nothing fetched"
    assert listing(tmp_path / "two") == listing(project)


def test_a_single_file_is_the_destination_itself(harbour, project: Path, tmp_path: Path) -> None:
    sent = harbour.sent(project / "run.sh")
    harbour.cache.materialize(sent, tmp_path / "alone")
    harbour.cache.materialize(sent, tmp_path, PurePosixPath("new/dir/name"), merge=True)
    for path in (tmp_path / "alone", tmp_path / "new/dir/name"):
        assert path.read_text() == "#!/bin/sh\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_merging_replaces_and_never_deletes(harbour, project: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    (volume / "pkg").mkdir(parents=True)
    (volume / "pkg").chmod(0o711)
    (volume / "kept").write_text("kept")
    (volume / "train.py").write_text("old")
    old = (volume / "train.py").open()
    harbour.cache.materialize(harbour.sent(project), volume, merge=True)
    with old:
        assert old.read() == "old"
    after = listing(volume)
    assert after.pop("kept")[1] == b"kept"
    assert after.pop("pkg")[0] == 0o711
    assert after == {k: v for k, v in listing(project).items() if k != "pkg"}


def test_merging_twice_is_the_same_as_once(harbour, project: Path, tmp_path: Path) -> None:
    sent = harbour.sent(project)
    (tmp_path / "volume").mkdir()
    for _ in range(2):
        harbour.cache.materialize(sent, tmp_path / "volume", merge=True)
    assert listing(tmp_path / "volume") == listing(project)


def test_a_link_in_a_volume_is_not_followed(harbour, project: Path, tmp_path: Path) -> None:
    outside, volume = tmp_path / "outside", tmp_path / "volume"
    outside.mkdir()
    volume.mkdir()
    (volume / "pkg").symlink_to(outside)
    with pytest.raises(SourceError, match="pkg there is a link, which is not followed"):
        harbour.cache.materialize(harbour.sent(project), volume, merge=True)
    with pytest.raises(SourceError, match="is a link"):
        harbour.cache.materialize(
            harbour.sent(project), volume, PurePosixPath("pkg/sub"), merge=True
        )
    assert list(outside.iterdir()) == []


def test_a_linked_file_in_a_volume_is_replaced(harbour, project: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "train.py").symlink_to("../precious")
    harbour.cache.materialize(harbour.sent(project), volume, merge=True)
    assert not (volume / "train.py").is_symlink()
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_directory_is_not_replaced_by_a_file(harbour, project: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    (volume / "train.py").mkdir(parents=True)
    with pytest.raises(SourceError, match="is a directory; it is not replaced"):
        harbour.cache.materialize(harbour.sent(project), volume, merge=True)
    with pytest.raises(SourceError, match="is a directory; name the file"):
        harbour.cache.materialize(harbour.sent(project / "run.sh"), volume, merge=True)
    assert not list(volume.glob(".moorage*"))


@pytest.mark.parametrize(
    "entries",
    [
        [file("/etc/passwd")],
        [file("../x")],
        [file("a/../../x")],
        [Entry("a", "dir", 0o755), file("a/./x")],
        [file("")],
        [file("a\0b")],
        [file("x"), file("x")],
        [file("a/x")],
        [file("a"), file("a/x")],
        [Entry("a", "link", 0, target="/tmp"), file("a/x")],
        [Entry("a", "link", 0, target="/tmp")],
        [Entry("d", "dir", 0o755), Entry("d/a", "link", 0, target="../../x")],
        [Entry("a", "link", 0)],
        [Entry("a", "file", 0o644)],
        [Entry("a", "file", 0o4755, HELLO, 5)],
        [Entry("a", "dir", 0o1777)],
        [Entry("a", "file", 0o644, Digest("../../../etc/passwd"), 5)],
        [Entry(".", "link", 0, target="x")],
        [Entry(".", "dir", 0o755)],
        [file("."), file("x")],
    ],
    ids=lambda entries: "+".join(f"{e.kind}:{e.path}" for e in entries)[:40].replace("\0", "0"),
)
def test_hostile_manifests_write_nothing(harbour, tmp_path: Path, entries: list[Entry]) -> None:
    with pytest.raises(SourceError, match="refused"):
        harbour.cache.materialize(store(harbour, entries), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_size_that_is_not_the_blobs_is_refused(harbour, tmp_path: Path) -> None:
    sent = store(harbour, [Entry("a", "file", 0o644, HELLO, 4)])
    with pytest.raises(SourceError, match="another size"):
        harbour.cache.materialize(sent, tmp_path / "out")


def test_a_blob_that_the_server_lacks(harbour, tmp_path: Path) -> None:
    sent = store(harbour, [Entry("a", "file", 0o644, Digest("0" * 64), 5)])
    with pytest.raises(SourceError, match="lacks 1 of 1 blobs"):
        harbour.cache.materialize(sent, tmp_path / "out")


def test_what_arrives_damaged_is_not_kept(harbour, project: Path, tmp_path: Path) -> None:
    sent = harbour.sent(project)

    def damaged(digests: Sequence[Digest]) -> Iterator[bytes]:
        whole = bytearray(b"".join(harbour.server.fetch(digests)))
        whole[-1] ^= 1
        yield bytes(whole)

    cache = BlobCache(tmp_path / "cache", damaged)
    with pytest.raises(SourceError, match="damaged"):
        cache.materialize(sent, tmp_path / "out")
    cut = BlobCache(tmp_path / "cut", lambda d: iter([b"".join(harbour.server.fetch(d))[:-1]]))
    with pytest.raises(SourceError, match="cut short"):
        cut.materialize(sent, tmp_path / "out")
    assert not [p for p in (tmp_path / "cut").rglob("*") if p.is_file()]


def test_a_damaged_cache_heals(harbour, project: Path, tmp_path: Path) -> None:
    sent = harbour.sent(project)
    harbour.cache.materialize(sent, tmp_path / "one")
    base = harbour.cache._files.directory
    for path in base.rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(path.read_bytes()[:-1])
    harbour.cache.materialize(sent, tmp_path / "two")
    assert listing(tmp_path / "two") == listing(project)


def test_cache_survives_a_restart_and_sweeps_leftovers(
    harbour, project: Path, tmp_path: Path
) -> None:
    sent = harbour.sent(project)
    harbour.cache.materialize(sent, tmp_path / "one")
    base = harbour.cache._files.directory
    (base / "arriving-xyz").write_text("half")
    again = BlobCache(base, harbour.server.fetch)
    assert again.materialize(sent, tmp_path / "two").fetched == 0
    assert not (base / "arriving-xyz").exists()


def test_the_cache_is_bounded(harbour, tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", harbour.server.fetch, limit=3000)
    for number in range(5):
        source = tmp_path / f"s{number}"
        source.write_bytes(os.urandom(1000))
        cache.materialize(harbour.sent(source), tmp_path / f"out{number}")
    kept = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in kept) <= 3000
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o400 for p in kept)
    names = {p.name for p in kept}
    assert blake3((tmp_path / "s4").read_bytes()).hexdigest() in names
    assert blake3((tmp_path / "s0").read_bytes()).hexdigest() not in names


def test_a_tree_larger_than_the_cache_still_comes(harbour, project: Path, tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", harbour.server.fetch, limit=10)
    cache.materialize(harbour.sent(project), tmp_path / "out")
    assert listing(tmp_path / "out") == listing(project)


def test_threads_fetch_each_blob_once(harbour, project: Path, tmp_path: Path) -> None:
    sent = harbour.sent(project)
    asked: list[Digest] = []
    meeting = threading.Barrier(4)

    def fetch(digests: Sequence[Digest]) -> Iterator[bytes]:
        asked.extend(digests)
        yield from harbour.server.fetch(digests)

    cache = BlobCache(tmp_path / "cache", fetch)
    failures: list[BaseException] = []

    def lay(number: int) -> None:
        try:
            meeting.wait(60)
            cache.materialize(sent, tmp_path / f"out{number}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=lay, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(asked) == len(set(asked)) == 5
    for number in range(4):
        assert listing(tmp_path / f"out{number}") == listing(project)


def test_who_waited_for_a_failed_fetch_tries_itself(
    harbour, project: Path, tmp_path: Path
) -> None:
    sent = harbour.sent(project)
    began, go_on = threading.Event(), threading.Event()
    first = threading.Lock()

    def fetch(digests: Sequence[Digest]) -> Iterator[bytes]:
        if first.acquire(blocking=False):
            began.set()
            go_on.wait(60)
            raise SourceError("the line is cut")
        yield from harbour.server.fetch(digests)

    cache = BlobCache(tmp_path / "cache", fetch)
    failures: list[str] = []

    def lay() -> None:
        try:
            cache.materialize(sent, tmp_path / "one")
        except SourceError as error:
            failures.append(str(error))

    thread = threading.Thread(target=lay)
    thread.start()
    assert began.wait(30)
    other = threading.Thread(target=cache.materialize, args=(sent, tmp_path / "two"))
    other.start()
    go_on.set()
    thread.join(60)
    other.join(60)
    assert failures == ["the line is cut"]
    assert listing(tmp_path / "two") == listing(project)


def test_an_unwritable_place_is_one_line(harbour, project: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(SourceError, match=r"^\S+ cannot be written: Not a directory$"):
        harbour.cache.materialize(harbour.sent(project), tmp_path / "plain/x")
