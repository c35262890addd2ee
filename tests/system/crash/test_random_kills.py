"""Server, agent and keeper are killed at random moments, under a load of jobs of every kind.

`MOORAGE_TEST_ROUNDS=34` makes about 1,000 kills of it.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from system.crash.audit import Expected, audit, descriptors
from system.crash.loads import RETRY, SMALL, Data
from system.crash.rounds import rounds, seed
from system.crash.world import World

KILLS = 15
"""In one round."""
VICTIMS = [
    ["server"],
    ["agent"],
    ["keeper"],
    ["server", "agent"],
    ["agent", "keeper"],
    ["server", "agent", "keeper"],
]
WEIGHTS = [6, 6, 5, 2, 2, 1]


class Load:
    """Submits, stops and deletes runs until told to end."""

    def __init__(self, world: World, data: Data, number: int) -> None:
        self.world, self.data = world, data
        self.chance = random.Random(number)
        self.expected: dict[int, Expected] = {}
        self.deleted: list[int] = []
        self.error: BaseException | None = None
        self.enough = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.enough.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            while not self.enough.is_set():
                self._step()
                self.enough.wait(self.chance.uniform(0, 0.15))
        except BaseException as error:
            self.error = error

    def _step(self) -> None:
        chosen = [self._job() for _ in range(self.chance.randint(1, 6))]
        runs = self.world.submit_all([spec for spec, _ in chosen])
        for run, (_, expected) in zip(runs, chosen, strict=True):
            self.expected[run] = expected
        if self.chance.random() < 0.3:
            self._stop(self.chance.choice(list(self.expected)))
        if self.chance.random() < 0.2:
            self._delete(self.chance.choice(list(self.expected)))

    def _stop(self, run: int) -> None:
        old = self.expected[run]
        # What failed before the stop reached it is not tried again.
        reasons = (*old.reasons, "exit-code") if old.retried else old.reasons
        self.expected[run] = replace(old, stopped=True, reasons=reasons)
        abort = self.chance.random() < 0.5
        reply = self.world.call("POST", f"/v1/runs/{run}/stop", {"abort": abort})
        assert reply.status in (200, 404, 409), reply.body

    def _delete(self, run: int) -> None:
        reply = self.world.call("DELETE", f"/v1/runs/{run}")
        if reply.status == 409:
            return  # still live
        # 404: the first of two tries was carried out, and its answer was lost.
        assert reply.status in (200, 204, 404), reply.body
        del self.expected[run]
        self.deleted.append(run)

    def _job(self) -> tuple[dict[str, Any], Expected]:
        line, chance = self.world.ledger.command, self.chance
        length = chance.choice([0, 0, 0.02, 0.2, 1])
        code = chance.choice([0, 0, 0, 1, 7])
        body = f"sleep {length}; " if length else ""
        spec: dict[str, Any] = {"resources": SMALL, "stop_duration": 3}
        if chance.random() < 0.3:
            spec["mounts"] = self.data.mounts
            body += self.data.check() + "; "
        kind = chance.random()
        if kind < 0.4:
            spec |= {"retry": RETRY, "commands": [line(body)]}
            return spec, Expected(retried=True)
        if kind < 0.5:
            spec |= {"retry": RETRY, "commands": [line(f"{body}test $MOORAGE_ATTEMPT -gt 1")]}
            return spec, Expected(retried=True)
        if kind < 0.6:
            spec |= {"max_duration": 0.5, "commands": [line("sleep 50 & wait")]}
            return spec, Expected(reasons=("timeout",), fragile=True)
        spec["commands"] = [line(f"{body}exit {code}")]
        return spec, Expected(code, fragile=True)


def excuse(world: World) -> None:
    """An agent whose new keeper is killed before it answers ends, and is started again."""
    words = (world.home.parent / "agent.log").read_text()
    if "the keeper did" in words or "the keeper does" in words or "cannot start the" in words:
        ended = "agent ended with code 1"
        world.unexpected[:] = [end for end in world.unexpected if end != ended]


def one_round(world: World, data: Data, number: int) -> None:
    chance = random.Random(number)
    with Load(world, data, number + 1_000_000) as load:
        killed = 0
        while killed < KILLS and load.error is None:
            # Not a wait for anything: the moment of the kill is what is drawn here.
            load.enough.wait(chance.choice([0.005, 0.05, 0.2, 0.5]) * chance.random() * 2)
            for victim in chance.choices(VICTIMS, WEIGHTS)[0]:
                killed += world.kill(victim)
    assert load.error is None, load.error
    excuse(world)
    audit(world, load.expected)
    for run in load.deleted:
        assert world.call("GET", f"/v1/runs/{run}").status == 404, "deleted, and there again"


@pytest.fixture(scope="module")
def data(world: World) -> Data:
    return Data(world)


@pytest.mark.timeout(7200)
def test_random_kills(world: World, data: Data) -> None:
    first = seed(1)
    open_before: dict[str, int] = {}
    for number in range(first, first + rounds(2)):
        began, deaths = time.monotonic(), sum(world.deaths.values())
        try:
            one_round(world, data, number)
        except BaseException as error:
            error.add_note(f"MOORAGE_TEST_SEED={number} MOORAGE_TEST_ROUNDS=1")
            raise
        killed = sum(world.deaths.values()) - deaths
        print(f"seed {number}: {killed} kills, {time.monotonic() - began:.1f} s")
        open_before = open_before or descriptors(world)
    print(f"in all: {world.deaths}, open files {open_before} -> {descriptors(world)}")
    for name, count in descriptors(world).items():
        # One that was killed last may not have been there again.
        assert count <= open_before.get(name, count) + 12
