"""A job runs on while server and agent are replaced by others of another version.

The old ones are a copy of this source that calls itself 0.0.9, or what `MOORAGE_TEST_OLD` names: a
directory that holds an older `moorage` package.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import moorage
from system.crash.audit import Expected, audit
from system.crash.loads import SMALL
from system.crash.world import World, living_world

OLD = "0.0.9"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where to import the old version from."""
    given = os.environ.get("MOORAGE_TEST_OLD")
    if given:
        return Path(given)
    place = tmp_path_factory.mktemp("old")
    source = Path(moorage.__file__).parent
    shutil.copytree(source, place / "moorage", ignore=shutil.ignore_patterns("__pycache__"))
    about = place / f"moorage-{OLD}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: moorage\nVersion: {OLD}\n")
    return place


@pytest.fixture
def world(old: Path) -> Iterator[World]:
    with living_world(old) as world:
        yield world


def version(world: World) -> tuple[str, str]:
    """Of the server and of the node's agent."""
    world.until_connected()
    return world.call("GET", "/v1/info").json["version"], world.nodes()[0]["version"]


class Follower:
    """Reads a run's output from its beginning until it ends or the server does."""

    def __init__(self, world: World, run: int) -> None:
        self.data = b""
        self._connection = world.server.connection()
        headers = {"Authorization": f"Bearer {world.server.token}"}
        self._connection.request("GET", f"/v1/runs/{run}/logs?follow=1", headers=headers)
        self._response = self._connection.getresponse()

    def until(self, text: bytes) -> None:
        while text not in self.data:
            line = self._response.readline()
            assert line, self.data
            self.data += line

    def close(self) -> None:
        self._response.close()
        self._connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_outlives_the_upgrade_of_server_and_agent(world: World, number: int) -> None:
    before = version(world)
    with world.ledger.closed(f"upgrade-{number}") as gate:
        body = f"echo before; {world.ledger.waiting(gate)}; echo after; exit 3"
        run = world.submit(commands=[world.ledger.command(body)], resources=SMALL)
        world.ledger.until("begin", world.job_of(run))
        follower = Follower(world, run)
        follower.until(b"before\n")
        keeper = world.pid("keeper")
        world.stop(number)
        follower.close()
        world.use(None)
        world.start()
        assert version(world) != before or "MOORAGE_TEST_OLD" in os.environ
        assert world.pid("keeper") == keeper, "it has the job, so it stays"
        follower = Follower(world, run)
        follower.until(b"before\n")
        assert b"after" not in follower.data
    follower.until(b"after\n")
    follower.close()
    audit(world, {run: Expected(3)})
    assert world.show(run)["summary"]["exit_code"] == 3
    # The next one runs under whatever keeper the new agent has, and ends as well.
    audit(world, {world.submit(commands=[world.ledger.command("exit 4")]): Expected(4)})


def test_a_job_that_ends_during_the_upgrade_keeps_its_exit_code(world: World) -> None:
    with world.ledger.closed("meanwhile") as gate:
        command = world.ledger.command(f"{world.ledger.waiting(gate)}; exit 6")
        run = world.submit(commands=[command], resources=SMALL)
        job = world.job_of(run)
        world.ledger.until("begin", job)
        world.stop()
    world.ledger.until("end", job)
    world.use(None)
    world.start()
    audit(world, {run: Expected(6)})
    assert world.show(run)["summary"]["exit_code"] == 6
