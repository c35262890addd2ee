"""Several servers on one database, whose leader is killed, frozen, ended and cut off under load:
nothing acknowledged is lost, nothing runs twice, and another one leads at once."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from postgres import Postgres
from system.fleet import LEASE, Fleet, Member, Users, fleet

ROUNDS = 4 * int(os.environ.get("MOORAGE_TEST_ROUNDS", "1"))
SEED = int(os.environ.get("MOORAGE_TEST_SEED", "0")) or random.SystemRandom().randrange(10**6)
WITHIN = 30.0
"""Seconds in which another server leads, once the lock is free."""


class Rounds:
    """What is done to the leader, and how long nobody led."""

    def __init__(self, servers: Fleet) -> None:
        self.servers = servers
        self.took: list[tuple[str, float]] = []

    def kill(self) -> None:
        """kill -9; it comes back and stands by."""
        leader = self.servers.leader
        began = time.monotonic()
        leader.kill()
        self._measure("kill", began, self.servers.others(leader))
        leader.ended()
        leader.start()

    def freeze(self) -> None:
        """Nothing tells the database that it is frozen: its session has to be ended."""
        leader = self.servers.leader
        began = time.monotonic()
        leader.signal(signal.SIGSTOP)
        self._measure("freeze", began + LEASE, self.servers.others(leader), began)
        thawed = time.monotonic()
        leader.signal(signal.SIGCONT)
        leader.await_saying("leading no longer", thawed)
        assert leader.role != "leader"

    def end(self) -> None:
        """SIGTERM: it hands over."""
        leader = self.servers.leader
        began = time.monotonic()
        leader.signal(signal.SIGTERM)
        self._measure("end", began, self.servers.others(leader))
        leader.ended()
        leader.start()

    def cut(self) -> None:
        """The database restarts under load; whoever is first leads."""
        leader = self.servers.leader
        stopped = time.monotonic()
        self.servers.postgres.stop("immediate")
        leader.await_saying("leading no longer", stopped)
        self.servers.postgres.start()
        self._measure("database", time.monotonic(), self.servers.members, stopped)

    def _measure(
        self, what: str, free: float, among: list[Member], since: float | None = None
    ) -> None:
        """Wait until one leads that did not before `since`; the lock is free from `free` on."""
        _, at = self.servers.await_leader(among, free if since is None else since)
        self.took.append((what, max(0.0, at - free)))


@pytest.mark.root  # a job writes into a directory outside its own /tmp
@pytest.mark.timeout(120 + 20 * ROUNDS)
def test_no_takeover_loses_or_doubles_anything(
    own_postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    record = tmp_path / "shared" / "record"
    record.parent.mkdir()
    kinds = ["kill", "freeze", "end", "cut"]
    with fleet(own_postgres, tmp_path, 3) as servers:
        rounds = Rounds(servers)
        with Users(servers.client, record) as users:
            for number in range(ROUNDS):
                if number % len(kinds) == 0:
                    chance.shuffle(kinds)
                getattr(rounds, kinds[number % len(kinds)])()
        assert users.failure is None, f"seed {SEED}"
        check(servers, users, record)
    with capsys.disabled():
        runs = f"{len(users.acknowledged)} runs, {users.repeated} submits repeated by hand"
        print(f"\nseed {SEED}: {runs}; {summary(rounds.took)}")
    assert max(seconds for _, seconds in rounds.took) < WITHIN, f"seed {SEED}: {rounds.took}"


def check(servers: Fleet, users: Users, record: Path) -> None:
    """Each acknowledged run succeeded, under the number it was given, and ran once."""
    expected = Counter(users.acknowledged)
    with servers.client() as client:
        for request, number in users.acknowledged.items():
            view = client.wait(number, timeout=60).summary
            assert view.name == request, f"seed {SEED}: {view}"
            assert view.state == "succeeded", f"seed {SEED}: {view}"
            expected[request] = 1
        total = sum(1 for _ in client.runs())
        assert total == len(users.acknowledged), f"seed {SEED}"
    ran = Counter(record.read_text().split())
    assert ran == +expected, f"seed {SEED}"


def summary(took: list[tuple[str, float]]) -> str:
    """Median and longest time without a leader, by what happened to the last one."""
    parts = []
    for kind in sorted({kind for kind, _ in took}):
        times = sorted(seconds for what, seconds in took if what == kind)
        middle = times[len(times) // 2]
        parts.append(f"{kind} x{len(times)}: {middle:.2f} s, at most {times[-1]:.2f} s")
    return "; ".join(parts)
