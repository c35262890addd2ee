"""Roots that serve several jobs: nothing of one is seen by the next."""

from __future__ import annotations

import os
import select
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moorage.agent.keeper.launching import may_mount
from moorage.agent.keeper.loop import Loop
from moorage.agent.sandbox import mounting
from moorage.agent.sandbox import roots as roots_module
from moorage.agent.sandbox.roots import Roots, cover_root

pytestmark = pytest.mark.root


def apart(call: Callable[[], None]) -> None:
    """On a thread that has a node to itself: what others do to this machine's mounts, and to its
    `/`, makes a root old as it should, and these tests say themselves when that happens."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            mounting.unshare(mounting.CLONE_FS | mounting.CLONE_NEWNS)
            mounting.mount("none", "/", None, mounting.REC | mounting.PRIVATE)
            with tempfile.TemporaryDirectory() as base:
                cover_root(base)
                call()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


@contextmanager
def prepared() -> Iterator[Roots]:
    roots = Roots()
    try:
        yield roots
    finally:
        roots.close()


@pytest.fixture(autouse=True)
def able() -> None:
    if not may_mount():
        pytest.skip("this process may not mount")


def test_a_root_that_nobody_wrote_to_serves_again(tmp_path: Path) -> None:
    def job() -> None:
        with prepared() as roots:
            first = roots.take(str(tmp_path))
            first.enter()
            assert Path("/workflow").is_dir()
            assert roots.lend(first)
            roots.give_back(first)
            second = roots.take(str(tmp_path))
            assert second is first
            assert roots.lend(second)
            roots.give_back(second)

    apart(job)
    assert not Path("/workflow").exists()


def test_many_jobs_at_a_time_take_no_descriptors_for_their_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roots_module, "_KEPT", 2)

    def job() -> None:
        with prepared() as roots:
            first, second, third = (roots.take(str(tmp_path)) for _ in range(3))
            assert roots.lend(first)
            assert roots.lend(second)
            assert roots.lend(third) is None
            roots.give_back(first)
            fourth = roots.take(str(tmp_path))
            assert fourth is first
            assert roots.lend(fourth)
            roots.give_back(second)
            roots.give_back(fourth)

    apart(job)


@pytest.mark.parametrize(
    "trace",
    [
        lambda: Path("/made-by-a-job").touch(),
        lambda: Path("/").chmod(0o700),
        lambda: (Path("/x").mkdir(), Path("/x").rmdir()),
        lambda: Path("/workflow/inside").touch(),
        lambda: mounting.mount("none", "/", None, mounting.REMOUNT | mounting.RDONLY),
    ],
)
def test_a_root_that_a_job_changed_does_not(tmp_path: Path, trace: Callable[[], object]) -> None:
    def job() -> None:
        with prepared() as roots:
            first = roots.take(str(tmp_path))
            if not first.own:
                pytest.skip("/workflow exists on this machine")
            first.enter()
            trace()
            assert roots.lend(first)
            roots.give_back(first)
            second = roots.take(str(tmp_path))
            assert second is not first
            second.enter()
            assert not Path("/made-by-a-job").exists()
            assert Path("/").stat().st_mode & 0o777 == 0o755
            assert not list(Path("/workflow").iterdir())
            assert roots.lend(second)
            roots.give_back(second)

    apart(job)
    assert not Path("/made-by-a-job").exists()


def test_what_the_node_mounts_is_seen_by_the_next(tmp_path: Path) -> None:
    """And a file system that the node gives up is not held by a root that waits."""

    def job() -> None:
        with prepared() as roots:
            place = tmp_path / "place"
            place.mkdir()
            first = roots.take(str(tmp_path))
            roots.leave()
            mounting.mount("tmpfs", str(place), "tmpfs", 0)
            (place / "data").touch()
            assert roots.lend(first)
            roots.give_back(first)
            second = roots.take(str(tmp_path))
            assert second is not first
            second.enter()
            assert (place / "data").exists()
            assert roots.lend(second)
            roots.give_back(second)

    apart(job)


def test_a_loop_that_hears_of_a_mount_throws_away_the_roots_that_wait(tmp_path: Path) -> None:
    """One event, two who ask for it: the loop must not take it from the next start."""

    def job() -> None:
        loop = Loop()
        with prepared() as roots:

            def heard(events: int) -> None:
                roots.notice(events)
                loop.stop()

            loop.watch(roots.mounts, heard, select.EPOLLPRI)
            first = roots.take(str(tmp_path))
            roots.leave()
            assert roots.lend(first)
            roots.give_back(first)
            mounting.mount("tmpfs", str(tmp_path), "tmpfs", 0)
            loop.later(60, loop.stop)
            loop.run()
            second = roots.take(str(tmp_path))
            assert second is not first
            assert roots.lend(second)
            roots.give_back(second)

    apart(job)


def test_an_entry_of_the_node_s_root_that_is_new_is_seen(tmp_path: Path) -> None:
    name = Path("/moorage-test")

    def job() -> None:
        with prepared() as roots:
            first = roots.take(str(tmp_path))
            roots.leave()
            name.mkdir()
            assert roots.lend(first)
            roots.give_back(first)
            second = roots.take(str(tmp_path))
            second.enter()
            assert name.is_dir()
            assert roots.lend(second)
            roots.give_back(second)

    apart(job)
    assert not name.exists()


def test_an_entry_that_goes_while_a_root_is_made_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {path.name for path in Path("/").iterdir()}

    def job() -> None:
        with prepared() as roots:
            with monkeypatch.context() as patch:
                patch.setattr(os, "listdir", lambda _: ["gone", *here])
                first = roots.take(str(tmp_path))
            first.enter()
            assert here <= {path.name for path in Path("/").iterdir()}
            assert not Path("/gone").exists()
            assert roots.lend(first)
            roots.give_back(first)

    apart(job)
