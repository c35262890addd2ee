"""One seed: a schedule of so many events, healing, and the shortest replay where it fails."""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple

from sim.heal import heal
from sim.replay import Failure, Recording, Shrinking, failure, replay
from sim.schedule import Schedule

SHORT = 500
BEGINNINGS = 100


class Found(NamedTuple):
    """What a seed found."""

    seed: int
    failure: Failure
    recording: Recording

    def __str__(self) -> str:
        why = f"seed {self.seed}, event {self.failure.steps}: {self.failure.detail}"
        return f"{why}\n\n{self.recording.dumps(why[:200])}"


def explore(seed: int, nodes: int, events: int, enough: int = 0) -> Found | None:
    """None where every promise held. `enough`: steps at which a replay is short enough."""
    schedule = Schedule(seed, nodes)
    with closing(schedule.world) as world:
        try:
            schedule.run(events)
            world.promises.everything()
            heal(world)
            return None
        except Exception as error:
            failed = failure(error, len(schedule.steps))
    recording = Recording(schedule.nodes, schedule.steps)
    if replay(recording) is None:
        raise RuntimeError(f"seed {seed} failed ({failed.detail}) and its replay does not")
    if len(recording.steps) > SHORT:
        recording = _shorter(seed, schedule, failed) or recording
    return Found(seed, failed, Shrinking(recording, failed.promise, enough).run())


def _shorter(seed: int, schedule: Schedule, failed: Failure) -> Recording | None:
    """Other beginnings of the same kind, cut off early: one may fail in the same way."""
    for other in range(seed + 1, seed + 1 + BEGINNINGS):
        short = Schedule(other, min(3, len(schedule.nodes)))
        short.faults = schedule.faults
        with closing(short.world) as world:
            try:
                short.run(SHORT)
                world.promises.everything()
                heal(world)
            except Exception as error:
                if failure(error, 0).promise == failed.promise:
                    return Recording(short.nodes, short.steps)
    return None
