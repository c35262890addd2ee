"""The disk is full at each point of a job's way, and has room again later: nothing is lost, and
whoever had to fail is told why."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from moorage.errors import MoorageError
from moorage.specs.mounts import Files
from moorage.specs.task import Task
from system.crash.audit import Expected, audit
from system.crash.loads import RETRY, SMALL
from system.crash.world import World, new_world, outside

pytestmark = pytest.mark.root


class SmallDisk:
    """A file system of 100 MiB, in memory: the server keeps 64 free when it takes content."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ballast = place / "ballast"

    def fill(self) -> None:
        """Not one byte is left."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            while os.statvfs(self.place).f_bavail:  # somebody may remove a file meanwhile
                for size in (1 << 20, 4096, 1):
                    with suppress(OSError):
                        while os.write(descriptor, b"x" * size):
                            pass
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        self._ballast.unlink()


@contextmanager
def small(part: str) -> Iterator[tuple[World, SmallDisk]]:
    """A world of which `server` or `agent` lies on a small disk."""
    with tempfile.TemporaryDirectory(prefix="moorage-crash-", dir=outside()) as name:
        world = new_world(Path(name))
        place = world.home / part
        place.mkdir(mode=0o700)
        mount = ["mount", "-t", "tmpfs", "-o", "size=100m,mode=700", "crash", str(place)]
        subprocess.run(mount, check=True)
        try:
            world.start()
            yield world, SmallDisk(place)
        finally:
            world.repaired.set()
            world.close()
            subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="module")
def server_disk() -> Iterator[tuple[World, SmallDisk]]:
    with small("server") as both:
        yield both


@pytest.fixture(scope="module")
def node_disk() -> Iterator[tuple[World, SmallDisk]]:
    with small("agent") as both:
        yield both


@contextmanager
def full(world: World, disk: SmallDisk) -> Iterator[None]:
    """For the length of the block; a server that ended for it is started again afterwards."""
    world.repaired.clear()
    disk.fill()
    try:
        yield
    finally:
        disk.empty()
        world.repaired.set()
        world.unexpected.clear()


def raw_submit(world: World, name: str) -> int:
    """The status of one try; 0 where the server ended before it answered."""
    body = {"request_id": name, "runs": [{"spec": {"type": "task", "commands": ["true"]}}]}
    try:
        return world.server.call("POST", "/v1/runs", body).status
    except (OSError, HTTPException):
        return 0


def test_what_a_full_disk_refuses_is_not_acknowledged(
    server_disk: tuple[World, SmallDisk],
) -> None:
    world, disk = server_disk
    kept = world.submit(commands=[world.ledger.command()], resources=SMALL)
    audit(world, {kept: Expected()})
    with full(world, disk):
        statuses = {raw_submit(world, f"full-{number}") for number in range(200)}
        # The log of the database has some room of its own; then it is refused.
        assert statuses <= {200, 503, 0}
        assert statuses & {503, 0}
    again = world.submit(commands=[world.ledger.command()], resources=SMALL)
    audit_after_full(world, {kept: Expected(), again: Expected()})
    words = (world.home / "server.log").read_text()
    assert "the disk is full" in words
    assert "Traceback" not in words


def test_a_job_that_ends_while_the_servers_disk_is_full_is_told_afterwards(
    server_disk: tuple[World, SmallDisk],
) -> None:
    world, disk = server_disk
    with world.ledger.closed("server-full") as gate:
        command = world.ledger.command(f"{world.ledger.waiting(gate)}; exit 6")
        run = world.submit(commands=[command], resources=SMALL)
        job = world.job_of(run)
        world.ledger.until("begin", job)
        disk.fill()
        world.repaired.clear()
    world.ledger.until("end", job)
    disk.empty()
    world.repaired.set()
    audit_after_full(world, {run: Expected(6)})


def test_an_upload_to_a_full_disk_is_refused_and_works_afterwards(
    server_disk: tuple[World, SmallDisk],
) -> None:
    world, disk = server_disk
    place = world.home.parent / "upload"
    place.mkdir()
    (place / "noise").write_bytes(os.urandom(3 << 20))
    task = Task(commands=["true"], mounts=[Files("upload", "in")])
    with full(world, disk), pytest.raises(MoorageError):
        world.upload(task)
    world.submit(commands=["true"], resources=SMALL)  # a server is there again
    filled = world.upload(task)
    tree = filled.mounts[0].tree
    mounts = [{"type": "files", "source": "upload", "target": "in", "tree": tree}]
    command = world.ledger.command("test $(stat -c %s in/noise) = 3145728")
    audit_after_full(world, {world.submit(commands=[command], mounts=mounts): Expected()})


def audit_after_full(world: World, expected: dict[int, Expected]) -> None:
    for run in expected:
        world.end(run)
    world.unexpected.clear()
    audit(world, expected)


def test_a_claim_on_a_full_node_fails_with_the_reason_and_is_tried_again(
    node_disk: tuple[World, SmallDisk],
) -> None:
    world, disk = node_disk
    disk.fill()
    once = world.submit(commands=[world.ledger.command()], resources=SMALL)
    [job] = world.end(once)["jobs"]
    assert (job["state"], job["reason"]) == ("failed", "phase-failed")
    assert "the node's disk is full" in job["message"]
    retried = world.submit(commands=[world.ledger.command()], resources=SMALL, retry=RETRY)
    while world.show(retried)["summary"].get("reason") != "phase-failed":
        world.call("GET", f"/v1/runs/{retried}/wait?timeout=0.2")
    disk.empty()
    audit(world, {retried: Expected(retried=True)})
    assert not world.ledger.lines(job["id"])


@pytest.mark.parametrize("killed", [[], ["agent"], ["agent", "server"]])
def test_a_job_that_ends_on_a_full_node_keeps_its_exit_code(
    node_disk: tuple[World, SmallDisk], killed: list[str]
) -> None:
    world, disk = node_disk
    with world.ledger.closed(f"node-full-{len(killed)}") as gate:
        command = world.ledger.command(f"{world.ledger.waiting(gate)}; exit 9")
        run = world.submit(commands=[command], resources=SMALL)
        job = world.job_of(run)
        world.ledger.until("begin", job)
        world.until_running(run)
        disk.fill()
    world.ledger.until("end", job)
    for victim in killed:
        assert world.kill(victim)
    assert world.end(run)["summary"]["exit_code"] == 9
    disk.empty()
    audit_after_full(world, {run: Expected(9)})


def test_what_a_job_cannot_write_is_its_own_error(node_disk: tuple[World, SmallDisk]) -> None:
    world, disk = node_disk
    command = world.ledger.command("head -c 150000000 /dev/zero > big || exit 28")
    run = world.submit(commands=[command], resources=SMALL)
    audit(world, {run: Expected(28)})
    assert not (disk.place / "ballast").exists()
