"""Each line of the table of bucket modes, tried: rclone and SeaweedFS, two nodes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from moorage.data.base import Bind, Place
from moorage.data.rclone import program
from moorage.data.rclone.mount import RcloneMount
from moorage.data.sources import Sources
from moorage.protocol.agent import Isolation
from moorage.specs.buckets import faults
from moorage.specs.mounts import Bucket, BucketMode
from moorage.specs.promises import PROMISES, Promise, page
from system.keeper_harness import House, play
from testbed.stores import StoreServer

PROBE = Path(__file__).with_name("bucket_probe.py")
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "bucket-modes.md"
MODES: tuple[BucketMode, ...] = ("mount", "cached", "copy")
TRIED_BELOW = (
    "second-writer",
    "staleness",
    "lock-nodes",
    "stored",
    "fsync-stored",
    "fsync-durable",
)
SECONDS = 60.0
DATA = Path("/data")
WRITER = """
import os, sys
with open(sys.argv[1], "wb", buffering=0) as file:
    file.write(b"x" * 3_000_000)
    os.fsync(file.fileno())
    print("synced", flush=True)
    sys.stdin.readline()
"""


@dataclass
class Node:
    """One that mounts buckets."""

    home: Path
    store: StoreServer
    mounted: int = 0

    def __post_init__(self) -> None:
        self.sources = Sources(
            self.home, lambda digests: iter(()), access=lambda store, key: self.store.access
        )
        self.made: list[tuple[Bucket, Place]] = []

    def mount(self, name: str, mode: BucketMode, read_only: bool = False) -> Path:
        back = mode == "copy"
        bucket = Bucket(
            "/data", store="s3", bucket=name, mode=mode, sync_back=back, read_only=read_only
        )
        self.mounted += 1
        directory = self.home / "attempts" / f"{self.mounted}.1.0"
        directory.mkdir(parents=True)
        place = Place(directory, directory / "work", self.home)
        self.made.append((bucket, place))
        handle = self.sources.buckets.prepare(bucket, place, 0)
        return handle.binds[0].source

    def flush(self) -> None:
        bucket, place = self.made[-1]
        self.sources.buckets.flush(bucket, place, 0, lambda moved: None, SECONDS)

    def close(self) -> None:
        for bucket, place in self.made:
            self.sources.buckets.release(bucket, place, 0)


@pytest.fixture
def nodes(tmp_path: Path, seaweed: StoreServer) -> Iterator[tuple[Node, Node]]:
    if why := program.why_not():
        pytest.skip(why)
    made = Node(tmp_path / "a", seaweed), Node(tmp_path / "b", seaweed)
    yield made
    for node in made:
        node.close()


def promised(key: str, mode: BucketMode) -> str:
    """The first word of a line."""
    found = next(one for one in PROMISES if one.key == key)
    return str(getattr(found, mode)).split(":")[0].split(",")[0]


def probe(place: Path) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, str(PROBE), str(place)], capture_output=True, text=True, check=False
    )
    found: dict[str, str] = dict(json.loads(line) for line in done.stdout.splitlines())
    if done.returncode < 0:
        found["mmap-write"] = "no"  # the last one: it is killed
    assert done.returncode in (0, -7), done.stderr
    return found


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_what_files_can_do(nodes: tuple[Node, Node], mode: BucketMode) -> None:
    node, other = nodes
    name = node.store.make_bucket()
    node.store.write(name, "there", b"before")
    place = node.mount(name, mode)
    assert (place / "there").read_bytes() == b"before"
    found = probe(place)
    node.flush()
    if mode == "mount":
        assert "mmap-write" in found
    later = other.mount(name, mode)
    if found["empty-directory"] == "yes" and not (later / "empty").exists():
        found["empty-directory"] = "no"
    for key in ("truncate-path", "rename-directory"):  # the error comes sometimes
        if found[key] == "yes":
            found[key] = promised(key, mode)
    expected = {one.key: promised(one.key, mode) for one in PROMISES if one.key in found}
    assert found == expected
    untried = {one.key for one in PROMISES} - set(found) - set(TRIED_BELOW)
    assert not untried
    stored = node.store.listing(name)
    assert {"there", "read", "over", "further", "moved/below/file"} <= set(stored)
    assert ("link.rclonelink" in stored) == (mode != "copy")


@pytest.mark.root
def test_what_is_written_is_noted_before_it_is_closed(nodes: tuple[Node, Node]) -> None:
    """What a killed rclone leaves is known by its notes alone."""
    node, _ = nodes
    place = node.mount(node.store.make_bucket(), "cached")
    mount = RcloneMount(node.made[0][1].directory / "mounts" / "0")
    assert mount.dirty() == []
    with open(place / "f", "wb", buffering=0) as file:
        file.write(b"x")
        assert mount.dirty() == ["f"]
    node.flush()
    assert mount.dirty() == []


@pytest.mark.root
def test_what_was_written_outlives_a_torn_note(nodes: tuple[Node, Node]) -> None:
    """rclone by itself throws the file away."""
    node, _ = nodes
    bucket = node.store.make_bucket()
    place = node.mount(bucket, "cached")
    (place / "f").write_bytes(b"acknowledged")
    mount = RcloneMount(node.made[0][1].directory / "mounts" / "0")
    mount.kill()
    [note] = [
        path for path in (mount.directory / "cache" / "vfsMeta").rglob("f") if path.is_file()
    ]
    note.write_bytes(b"")
    mount.start()
    node.flush()
    assert node.store.rclone("cat", f"X:{bucket}/f") == b"acknowledged"


@pytest.mark.root
def test_its_process_knows_no_secret_but_its_own(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"PGPASSWORD": "hidden-1", "AWS_SECRET_ACCESS_KEY": "hidden-2", "ANY": "hidden-3"}
    for name, text in secrets.items():
        monkeypatch.setenv(name, text)
    node, _ = nodes
    node.mount(node.store.make_bucket(), "mount")
    pid = RcloneMount(node.made[0][1].directory / "mounts" / "0").find()
    environment = Path(f"/proc/{pid}/environ").read_text()
    assert node.store.access.secrets["secret_access_key"] in environment
    assert "hidden" not in environment


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_when_something_is_stored(nodes: tuple[Node, Node], mode: BucketMode) -> None:
    node, _ = nodes
    name = node.store.make_bucket()
    place = node.mount(name, mode)
    content = b"x" * 3_000_000
    # Another process, which starts none: that would close the file.
    words = [sys.executable, "-c", WRITER, str(place / "file")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"synced\n"
        assert promised("fsync-stored", mode) == "no"
        assert node.store.listing(name) == {}
        writer.communicate(b"go\n")
    if promised("stored", mode) == "yes":
        assert node.store.listing(name) == {"file": len(content)}
    node.flush()
    assert node.store.listing(name) == {"file": len(content)}


@pytest.mark.root
def test_fsync_that_waits_for_the_store(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    """What `fsync` of such a job does with other stores, programs and faults is in
    `tests/system/buckets/test_fsync_jobs.py`."""
    node, _ = nodes
    name = node.store.make_bucket()
    place = node.mount(name, "cached")
    directory = node.made[0][1].directory / "mounts" / "0"
    words = shlex.join([sys.executable, "-c", WRITER, "/data/file"])

    async def body(house: House) -> None:
        request = house.request(house.launch(1, f"{words} < go"), [Bind(place, DATA)])
        os.mkfifo(house.directory(1) / "work" / "go")
        await house.keeper.spawn(msgspec.structs.replace(request, fsyncs=[str(directory)]))
        told = os.open(house.directory(1) / "work" / "go", os.O_WRONLY)
        await house.line(1, "synced")
        assert promised("fsync-durable", "cached") == "yes"
        assert node.store.listing(name) == {"file": 3_000_000}
        os.close(told)
        assert (await house.end(1)).exit_code == 0

    play(tmp_path / "house", Isolation(), body)
    for mode in ("mount", "copy"):
        assert promised("fsync-durable", mode) == "no"
        refused = Bucket("/data", "s3", name, mode=mode, durable="fsync", sync_back=mode == "copy")
        assert [fault.key for fault in faults(refused)] == ["durable"]


@pytest.mark.root
def test_who_only_reads_sees_when_it_was_stored(nodes: tuple[Node, Node]) -> None:
    node, other = nodes
    name = node.store.make_bucket()
    place = node.mount(name, "mount")
    (place / "f").write_bytes(b"x")
    os.utime(place / "f", (1e9, 1e9))
    node.flush()
    assert promised("mtime", "mount") == "yes"
    assert (other.mount(name, "mount") / "f").stat().st_mtime == 1e9
    stored = (other.mount(name, "mount", read_only=True) / "f").stat().st_mtime
    assert abs(stored - time.time()) < SECONDS * 2


@pytest.mark.root
@pytest.mark.parametrize(("mode", "limit"), [("mount", 5.0), ("cached", 10.0)])
def test_what_another_node_sees(nodes: tuple[Node, Node], mode: BucketMode, limit: float) -> None:
    node, other = nodes
    name = node.store.make_bucket()
    here, there = node.mount(name, mode), other.mount(name, mode)
    assert list(there.iterdir()) == []  # the listing is kept from now on
    (here / "new").write_bytes(b"one")
    node.flush()
    stored = time.monotonic()
    assert f"after {limit:g} s at most" == promised("staleness", mode)
    until(lambda: (there / "new").exists(), stored + limit + 1.5)
    assert (there / "new").read_bytes() == b"one"


def until(true: Callable[[], bool], deadline: float) -> None:
    """Nothing tells of what another node stored: that is what is measured."""
    never = threading.Event()
    now = time.monotonic()
    while not true():
        assert now < deadline  # when it was looked, not when the look came to its end
        never.wait(0.1)
        now = time.monotonic()


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_two_nodes_write_one_file(nodes: tuple[Node, Node], mode: BucketMode) -> None:
    node, other = nodes
    name = node.store.make_bucket()
    node.store.write(name, "file", b"first")
    here, there = node.mount(name, mode), other.mount(name, mode)
    with open(here / "file", "wb") as one, open(there / "file", "wb") as two:
        one.write(b"a" * 100_000)
        two.write(b"b" * 90_000)
    with suppress(Exception):
        node.flush()
    with suppress(Exception):
        other.flush()
    assert node.store.read(name, "file") in (b"a" * 100_000, b"b" * 90_000)


def test_the_page_is_made_of_the_table() -> None:
    assert PAGE.read_text() == page(), "run scripts/gen_bucket_modes.py"


def test_each_line_is_tried_once() -> None:
    keys = [one.key for one in PROMISES]
    assert len(keys) == len(set(keys))
    assert isinstance(PROMISES[0], Promise)
