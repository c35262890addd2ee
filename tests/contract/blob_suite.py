"""What the server's content store must do over any database."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from backports import zstd
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import rows
from moorage.errors import InvalidInput, NotFound, Unavailable
from moorage.ids import Digest
from moorage.protocol import packs, tree
from moorage.store.base import Statement, Store
from moorage.store.blobs import Blobs
from moorage.store.packfiles import PackFiles
from moorage.store.packs import Packs
from moorage.store.writer import Writer

DAY = 86400.0


def name(raw: bytes) -> Digest:
    return Digest(blake3(raw).hexdigest())


def frame(raw: bytes, digest: Digest | None = None, size: int | None = None) -> bytes:
    data = zstd.compress(raw)
    return packs.header(digest or name(raw), len(data), len(raw) if size is None else size) + data


def pack(*blobs: bytes) -> bytes:
    return b"".join(frame(raw) for raw in blobs)


def unpacked(data: bytes) -> list[tuple[str, bytes]]:
    return [
        (one.digest, zstd.decompress(data[one.start : one.start + one.length]))
        for one in packs.frames(data)
    ]


def manifest(*blobs: bytes) -> bytes:
    entries = [
        tree.Entry(str(number), "file", digest=name(raw), size=len(raw))
        for number, raw in enumerate(blobs)
    ]
    return tree.encode(tree.Manifest([tree.Entry("empty", "dir", 0o755), *entries]))


def noise(size: int) -> bytes:
    """Does not compress, so that sizes on disk are known."""
    return os.urandom(size)


def pack_files(directory: Path, store: Store, writer: Writer) -> Packs:
    return PackFiles(directory / "packs")


class World:
    """A content store with a clock of its own."""

    def __init__(
        self,
        directory: Path,
        open_store: Callable[[Path], Store],
        make_packs: Callable[[Path, Store, Writer], Packs] | None = None,
    ) -> None:
        self.directory = directory
        self.now = 1_000_000.0
        self.store = open_store(directory)
        self.writer = Writer(self.store)
        self.packs = (make_packs or pack_files)(directory, self.store, self.writer)
        self.blobs = self.reopened()

    def reopened(self, upload_limit: int = 0) -> Blobs:
        return Blobs(
            self.directory,
            self.store,
            self.writer,
            packs=self.packs,
            upload_limit=upload_limit,
            clock=lambda: self.now,
        )

    def refer(self, run: int, *uses: tuple[str, str]) -> None:
        batch = [rows.run(run)] + [
            Statement("insert_run_blob", {"run_id": run, "digest": digest, "kind": kind})
            for digest, kind in uses
        ]
        self.writer.submit(batch).result()

    def write(self, *batch: Statement) -> None:
        self.writer.submit(batch).result()

    def stored(self) -> list[str]:
        """The packs whose bytes are there."""
        return sorted(self.packs.listing()[0])

    def content(self, stored: str) -> bytes:
        with self.packs.open(stored) as file:
            return file.read()

    def replace(self, stored: str, data: bytes) -> None:
        """As a failing disk does."""
        self.packs.remove(stored)
        self.packs.write(stored, [data])

    def partials(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "partial").iterdir())

    def holds(self, digests: Sequence[str]) -> list[bool]:
        missing = self.blobs.missing(digests).digests
        return [digest not in missing for digest in digests]

    def close(self) -> None:
        self.writer.close()
        self.store.close()


class BlobSuite:
    """All cases."""

    def open(self, directory: Path) -> Store:
        """The database that belongs to this directory."""
        raise NotImplementedError

    def make_packs(self, directory: Path, store: Store, writer: Writer) -> Packs:
        """Where the bytes are kept; files, unless a subclass says otherwise."""
        return pack_files(directory, store, writer)

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[World]:
        world = World(tmp_path, self.open, self.make_packs)
        yield world
        world.close()

    # packs

    def test_blobs_of_a_pack_come_back(self, world: World) -> None:
        blobs = [b"", b"a", b"b" * 100_000, noise(5000)]
        assert world.blobs.add_pack(pack(*blobs)) == 4
        for raw in blobs:
            assert world.blobs.read(name(raw)) == raw
        sent = b"".join(world.blobs.iter_pack([name(raw) for raw in blobs]))
        assert unpacked(sent) == [(name(raw), raw) for raw in blobs]

    def test_an_empty_pack_is_nothing(self, world: World) -> None:
        assert world.blobs.add_pack(b"") == 0
        assert world.stored() == []

    def test_what_is_known_is_not_kept_again(self, world: World) -> None:
        world.blobs.add_pack(pack(b"one", b"two"))
        assert world.blobs.add_pack(pack(b"two", b"three", b"one", b"four", b"four")) == 4
        assert world.blobs.add_pack(pack(b"two", b"one")) == 2
        assert len(world.stored()) == 2
        assert sum(len(world.content(stored)) for stored in world.stored()) == len(
            pack(b"one", b"two", b"three", b"four")
        )
        for raw in (b"one", b"two", b"three", b"four"):
            assert world.blobs.read(name(raw)) == raw

    @pytest.mark.parametrize(
        "bad",
        [
            frame(b"good", digest=name(b"other")),
            frame(b"good", size=3),
            frame(b"good", size=5),
            frame(b"x" * 10_000_000, size=4),
            frame(b"x", size=packs.CHUNK_LIMIT + 1),
            frame(b"x", size=2**64 - 1),
            packs.header(name(b"good"), 4, 4) + b"good",
            packs.header(name(b"good"), 0, 4),
            packs.header(name(b""), 0, 0),
            packs.header(name(b"good"), len(zstd.compress(b"good")) + 1, 4)
            + zstd.compress(b"good")
            + b"!",
            packs.header(name(b"good"), len(zstd.compress(b"good")) - 1, 4)
            + zstd.compress(b"good")[:-1],
            frame(b"good")[:-1],
            frame(b"good")[:20],
        ],
    )
    def test_a_pack_with_a_wrong_blob_is_refused_whole(self, world: World, bad: bytes) -> None:
        with pytest.raises(InvalidInput):
            world.blobs.add_pack(pack(b"right") + bad)
        assert world.holds([name(b"right")]) == [False]
        assert world.stored() == []

    def test_the_refusal_names_the_digest(self, world: World) -> None:
        with pytest.raises(InvalidInput, match=name(b"other")):
            world.blobs.add_pack(frame(b"good", digest=name(b"other")))

    def test_a_bomb_is_not_unpacked(self, world: World) -> None:
        bomb = zstd.compress(bytes(400_000_000))
        data = packs.header(name(b""), len(bomb), 1000) + bomb
        with pytest.raises(InvalidInput):
            world.blobs.add_pack(data)

    def test_the_upload_limit_holds_for_packs_and_parts(self, world: World) -> None:
        blobs = world.reopened(upload_limit=10)
        assert blobs.add_pack(pack(b"0123456789")) == 1
        with pytest.raises(InvalidInput, match="upload_limit"):
            blobs.add_pack(pack(b"0123456789a"))
        with pytest.raises(InvalidInput, match="upload_limit"):
            blobs.append_part(name(b"0123456789a"), 0, 11, b"01")

    def test_many_uploads_at_once_lose_nothing(self, world: World) -> None:
        blobs = [f"blob {number}".encode() for number in range(200)]
        shifts = [pack(*blobs[start : start + 80]) for start in range(0, 130, 10)]
        with ThreadPoolExecutor(6) as threads:
            assert list(threads.map(world.blobs.add_pack, shifts)) == [80] * 13
        sent = b"".join(world.blobs.iter_pack([name(raw) for raw in blobs]))
        assert [raw for _, raw in unpacked(sent)] == blobs

    # asking and fetching

    def test_missing_answers_in_the_order_of_the_question(self, world: World) -> None:
        world.blobs.add_pack(pack(b"here"))
        asked = [name(b"z"), name(b"here"), name(b"a")]
        assert world.blobs.missing(asked).digests == [name(b"z"), name(b"a")]

    def test_a_tree_is_here_only_with_all_its_files(self, world: World) -> None:
        root = manifest(b"one", b"two")
        ask = [name(root)]
        assert world.blobs.missing(trees=ask).trees == ask
        world.blobs.add_pack(pack(root, b"one"))
        assert world.blobs.missing(trees=ask).trees == ask
        world.blobs.add_pack(pack(b"two"))
        assert world.blobs.missing(trees=ask).trees == []

    def test_what_is_no_manifest_is_no_tree(self, world: World) -> None:
        world.blobs.add_pack(pack(b"text"))
        with pytest.raises(InvalidInput, match="manifest"):
            world.blobs.missing(trees=[name(b"text")])

    @pytest.mark.parametrize("text", ["", "abc", "../../etc/passwd", "A" * 64, "a" * 63 + "\n"])
    def test_what_is_no_digest_is_refused_everywhere(self, world: World, text: str) -> None:
        for call in (
            lambda: world.blobs.missing([text]),
            lambda: world.blobs.missing(trees=[text]),
            lambda: world.blobs.read(text),
            lambda: world.blobs.iter_pack([text]),
            lambda: world.blobs.part(text),
            lambda: world.blobs.append_part(text, 0, 1, b"x"),
        ):
            with pytest.raises(InvalidInput, match="digest"):
                call()

    def test_fetching_what_is_not_here_fails_before_anything_is_sent(self, world: World) -> None:
        world.blobs.add_pack(pack(b"here"))
        with pytest.raises(NotFound, match=name(b"gone")):
            world.blobs.iter_pack([name(b"here"), name(b"gone")])
        with pytest.raises(NotFound):
            world.blobs.read(name(b"gone"))

    # Each database runs this test as its own.
    @settings(
        max_examples=20,
        deadline=None,
        suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
    )
    @given(order=st.lists(st.integers(0, 11), max_size=40))
    def test_a_fetch_keeps_its_order_and_repetitions(
        self, tmp_path_factory: pytest.TempPathFactory, order: list[int]
    ) -> None:
        world = World(tmp_path_factory.mktemp("fetch"), self.open, self.make_packs)
        try:
            blobs = [bytes([number]) * (number * number * 4000) for number in range(12)]
            for first in range(0, 12, 4):
                world.blobs.add_pack(pack(*blobs[first : first + 4]))
            sent = b"".join(world.blobs.iter_pack([name(blobs[n]) for n in order]))
            assert unpacked(sent) == [(name(blobs[n]), blobs[n]) for n in order]
        finally:
            world.close()

    def test_damage_on_disk_is_noticed(self, world: World) -> None:
        world.blobs.add_pack(pack(noise(1000)))
        [stored] = world.stored()
        data = bytearray(world.content(stored))
        digest = next(packs.frames(bytes(data))).digest
        data[-100] ^= 1
        world.replace(stored, bytes(data))
        with pytest.raises(Unavailable, match=digest):
            world.blobs.read(digest)
        world.replace(stored, bytes(data[:500]))
        with pytest.raises(Unavailable, match="shorter"):
            world.blobs.read(digest)
        world.packs.remove(stored)
        with pytest.raises(Unavailable, match="lost"):
            world.blobs.read(digest)

    # parts

    def test_a_large_blob_arrives_in_parts_and_resumes(self, world: World) -> None:
        raw = noise(3_000_000)
        digest = name(raw)
        assert not world.blobs.part(digest).complete
        first = world.blobs.append_part(digest, 0, len(raw), raw[:1_000_000])
        assert (first.received, first.complete) == (1_000_000, False)
        world.blobs = world.reopened()
        assert world.blobs.part(digest) == first
        gap = world.blobs.append_part(digest, 2_000_000, len(raw), raw[2_000_000:])
        assert gap == first
        overlap = world.blobs.append_part(digest, 500_000, len(raw), raw[500_000:2_000_000])
        assert (overlap.received, overlap.complete) == (2_000_000, False)
        last = world.blobs.append_part(digest, 2_000_000, len(raw), raw[2_000_000:])
        assert (last.received, last.complete) == (len(raw), True)
        assert world.blobs.part(digest) == last
        assert world.blobs.append_part(digest, 0, len(raw), raw[:10]) == last
        assert world.partials() == []
        assert world.blobs.read(digest) == raw
        assert unpacked(b"".join(world.blobs.iter_pack([digest]))) == [(digest, raw)]

    def test_an_empty_blob_can_come_as_a_part(self, world: World) -> None:
        assert world.blobs.append_part(name(b""), 0, 0, b"").complete
        assert world.blobs.read(name(b"")) == b""

    def test_parts_of_something_else_are_thrown_away_at_the_end(self, world: World) -> None:
        digest = name(b"right")
        with pytest.raises(InvalidInput, match=digest):
            world.blobs.append_part(digest, 0, 5, b"wrong")
        assert world.blobs.part(digest).received == 0
        assert (world.partials(), world.stored()) == ([], [])
        assert world.blobs.append_part(digest, 0, 5, b"right").complete

    @pytest.mark.parametrize(("offset", "size"), [(-1, 10), (0, 2), (8, 10)])
    def test_a_part_outside_its_blob_is_refused(
        self, world: World, offset: int, size: int
    ) -> None:
        with pytest.raises(InvalidInput):
            world.blobs.append_part(name(b"x"), offset, size, b"abc")

    def test_a_blob_cannot_shrink(self, world: World) -> None:
        world.blobs.append_part(name(b"x"), 0, 10, b"01234567")
        with pytest.raises(InvalidInput, match="8 are here"):
            world.blobs.append_part(name(b"x"), 0, 3, b"012")

    def test_two_clients_sending_one_blob_help_each_other(self, world: World) -> None:
        raw = noise(2_000_000)
        digest = name(raw)
        barrier = threading.Barrier(2)

        def client() -> None:
            barrier.wait()
            reply = world.blobs.part(digest)
            while not reply.complete:
                start = reply.received
                part = raw[start : start + 100_000]
                reply = world.blobs.append_part(digest, start, len(raw), part)

        with ThreadPoolExecutor(2) as threads:
            for done in [threads.submit(client) for _ in range(2)]:
                done.result()
        assert world.blobs.read(digest) == raw
        assert len(world.stored()) == 1

    # collection

    def test_only_what_nothing_refers_to_is_deleted(self, world: World) -> None:
        root = manifest(b"in tree")
        world.blobs.add_pack(pack(root, b"in tree", b"git pack", b"unused"))
        world.refer(1, (name(root), "tree"), (name(b"git pack"), "blob"))
        world.now += 2 * DAY
        assert world.blobs.collect(world.now, DAY).blobs == 1
        digests = [name(raw) for raw in (root, b"in tree", b"git pack", b"unused")]
        assert world.holds(digests) == [True, True, True, False]
        world.write(Statement("delete_run", {"id": 1}))
        world.now += 2 * DAY
        assert world.blobs.collect(world.now, DAY).blobs == 3
        assert world.stored() == []

    def test_what_is_young_stays(self, world: World) -> None:
        world.blobs.add_pack(pack(b"new"))
        world.now += DAY / 2
        assert world.blobs.collect(world.now, DAY).blobs == 0
        assert world.holds([name(b"new")]) == [True]

    def test_being_asked_for_begins_the_grace_period_anew(self, world: World) -> None:
        root = manifest(b"file")
        world.blobs.add_pack(pack(root, b"file", b"known", b"alone"))
        world.now += DAY
        assert world.blobs.missing(trees=[name(root)]).trees == []
        world.blobs.add_pack(pack(b"known"))
        world.now += DAY / 2
        assert world.blobs.collect(world.now, DAY).blobs == 1
        assert world.blobs.read(name(b"file")) == b"file"
        assert world.blobs.read(name(b"known")) == b"known"

    def test_a_pack_that_is_mostly_dead_is_made_smaller(self, world: World) -> None:
        kept = [noise(1000), noise(1500)]
        dead = [noise(4000) for _ in range(3)]
        world.blobs.add_pack(pack(dead[0], kept[0], dead[1], kept[1], dead[2]))
        [old] = world.stored()
        before = len(world.content(old))
        world.refer(1, *((name(raw), "blob") for raw in kept))
        world.now += 2 * DAY
        reply = world.blobs.collect(world.now, DAY)
        [stored] = world.stored()
        content = world.content(stored)
        assert (reply.blobs, reply.bytes) == (3, before - len(content))
        assert len(content) == len(pack(*kept))
        assert unpacked(content) == [(name(raw), raw) for raw in kept]
        assert [world.blobs.read(name(raw)) for raw in kept] == kept

    def test_a_pack_that_is_mostly_alive_is_left_alone(self, world: World) -> None:
        world.blobs.add_pack(pack(b"kept" * 1000, b"also kept", b"dead"))
        [stored] = world.stored()
        world.refer(1, (name(b"kept" * 1000), "blob"), (name(b"also kept"), "blob"))
        world.now += 2 * DAY
        assert world.blobs.collect(world.now, DAY).bytes == 0
        assert world.stored() == [stored]
        assert world.holds([name(b"dead")]) == [False]

    def test_leftovers_of_a_crash_are_removed(self, world: World) -> None:
        world.blobs.add_pack(pack(b"kept"))
        world.packs.write("ab" * 16, [b"half a pack"])
        assert world.blobs.collect(world.now, DAY).bytes == 11
        assert "ab" * 16 not in world.stored()
        assert world.blobs.read(name(b"kept")) == b"kept"

    def test_uploads_given_up_are_removed(self, world: World) -> None:
        world.blobs.append_part(name(b"x"), 0, 10, b"01234")
        os.utime(world.directory / "partial" / name(b"x"), (world.now, world.now))
        world.now += DAY / 2
        assert world.blobs.collect(world.now, DAY).bytes == 0
        world.now += DAY
        assert world.blobs.collect(world.now, DAY).bytes == 5
        assert world.partials() == []

    def test_a_fetch_goes_on_while_its_pack_is_rewritten(self, world: World) -> None:
        first, kept, dead = noise(600_000), noise(1000), noise(9000)
        world.blobs.add_pack(pack(first))
        world.blobs.add_pack(pack(dead, kept))
        world.refer(1, (name(first), "blob"), (name(kept), "blob"))
        sending = world.blobs.iter_pack([name(first), name(kept)])
        begun = next(sending)
        world.now += 2 * DAY
        assert world.blobs.collect(world.now, DAY).blobs == 1
        rest = b"".join(sending)
        assert unpacked(begun + rest) == [(name(first), first), (name(kept), kept)]

    def test_a_fetch_goes_on_where_it_was_in_a_pack_that_is_rewritten(self, world: World) -> None:
        kept = [noise(400_000), noise(300_000), noise(200_000)]
        world.blobs.add_pack(pack(noise(2_000_000), *kept[:2], noise(10), kept[2]))
        world.refer(1, *((name(raw), "blob") for raw in kept))
        sending = world.blobs.iter_pack([name(raw) for raw in kept])
        begun = next(sending) + next(sending)
        world.now += 2 * DAY
        assert world.blobs.collect(world.now, DAY).blobs == 2
        sent = begun + b"".join(sending)
        assert unpacked(sent) == [(name(raw), raw) for raw in kept]

    def test_beyond_a_total_size_the_longest_unused_goes_first(self, world: World) -> None:
        kept = [noise(10_000) for _ in range(6)]
        for raw in kept:
            world.blobs.add_pack(pack(raw))
            world.now += 1000
        world.refer(1, (name(kept[0]), "blob"))
        world.now += 7200
        dry = world.blobs.collect(world.now, DAY, limit=35_000, dry_run=True)
        assert (dry.blobs, world.holds([name(raw) for raw in kept])) == (3, [True] * 6)
        # holds() relied on all of them, and so nothing may go for two hours
        assert world.blobs.collect(world.now, DAY, limit=35_000).blobs == 0
        world.now += 3 * 3600
        assert world.blobs.collect(world.now, DAY, limit=35_000).blobs == 3
        assert world.blobs.read(name(kept[0])) == kept[0]
        assert world.blobs.collect(world.now, DAY, limit=35_000).blobs == 0

    def test_many_small_packs_become_few(self, world: World) -> None:
        blobs = [noise(2000) for _ in range(40)]
        for raw in blobs[:15]:
            world.blobs.add_pack(pack(raw))
        world.blobs.collect(world.now, DAY)
        assert len(world.store.read("packs")) == 15
        for raw in blobs[15:]:
            world.blobs.add_pack(pack(raw))
        assert world.blobs.collect(world.now, DAY).bytes == 0
        assert len(world.store.read("packs")) == 1
        for raw in blobs:
            assert world.blobs.read(name(raw)) == raw
        sent = b"".join(world.blobs.iter_pack([name(raw) for raw in blobs]))
        assert [raw for _, raw in unpacked(sent)] == blobs

    def test_uploads_and_collections_do_not_hurt_each_other(self, world: World) -> None:
        """Old content, unreferenced, is uploaded again while it is being collected: whatever the
        reply to an upload promised must be there."""
        blobs = [f"blob {number}".encode() * 50 for number in range(60)]
        done = threading.Event()

        def collect() -> None:
            while not done.is_set():
                world.blobs.collect(world.now, DAY)

        collector = threading.Thread(target=collect)
        world.blobs.add_pack(pack(*blobs))
        collector.start()
        try:
            for turn in range(30):
                world.now += 2 * DAY
                chosen = blobs[turn : turn + 30]
                world.blobs.add_pack(pack(*chosen))
                sent = b"".join(world.blobs.iter_pack([name(raw) for raw in chosen]))
                assert [raw for _, raw in unpacked(sent)] == chosen
        finally:
            done.set()
            collector.join()
