"""Runs schedules that were recorded, and makes those that fail as short as they can be.

`python -m sim` in `tests/` does both from a shell.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from sim.heal import heal
from sim.ledger import Broken
from sim.world import Step, World

PATIENCE = 2500
"""Replays that a failure is worth."""
PLAIN = (1, 0, 0, 0, 0, "", "ends")


class Failure(NamedTuple):
    """`steps` ran before it, the last of them (or the healing afterwards) met it."""

    promise: str
    detail: str
    steps: int


class Recording(NamedTuple):
    """A schedule with its nodes; as JSON, one step a line."""

    nodes: dict[str, str]
    steps: Sequence[Step]

    def dumps(self, why: str = "") -> str:
        lines = ",\n  ".join(json.dumps(step) for step in self.steps)
        head = f'{{"why": {json.dumps(why)},\n "nodes": {json.dumps(self.nodes)},\n "steps": ['
        return f"{head}\n  {lines}\n]}}\n"

    @classmethod
    def load(cls, path: Path) -> Recording:
        read = json.loads(path.read_text())
        return cls(read["nodes"], read["steps"])


def replay(recording: Recording, world_type: type[World] = World) -> Failure | None:
    """Carry it out, heal, and say what broke."""
    done = 0
    try:
        with closing(world_type(recording.nodes)) as world:
            for step in recording.steps:
                done += 1
                world.do(step)
                world.appeared.clear()
            if world.leader.alive:
                world.promises.everything()
            heal(world)
    except Exception as error:
        return failure(error, done)
    return None


def failure(error: Exception, done: int) -> Failure:
    """Errors of the product itself are known by where they were raised."""
    if isinstance(error, Broken):
        return Failure(error.promise, str(error), done)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    name = f"{type(error).__name__} in {frame.name}"
    return Failure(name, f"{name}: {error}", done)


class Shrinking:
    """`recording` fails, and becomes shorter as long as it fails in the same way."""

    def __init__(self, recording: Recording, promise: str, world_type: type[World] = World) -> None:
        self.recording = recording
        self.promise = promise
        self.world_type = world_type
        self.replays = 0

    def run(self) -> Recording:
        """The shortest that was found."""
        before = -1
        while before != self._size():
            before = self._size()
            self._nodes()
            self._chunks()
            self._requests()
        return self.recording

    def _size(self) -> int:
        return len(self.recording.dumps())

    def _try(self, nodes: dict[str, str], steps: Sequence[Step]) -> bool:
        if self.replays > PATIENCE:
            return False
        self.replays += 1
        failed = replay(Recording(nodes, steps), self.world_type)
        if failed is None or failed.promise != self.promise:
            return False
        self.recording = Recording(nodes, steps[: failed.steps])
        return True

    def _nodes(self) -> None:
        """All but one, all but half, all but each."""
        names = list(self.recording.nodes)
        parts = [[n for n in names if n != name] for name in names]
        parts += [names[: len(names) // 2], names[len(names) // 2 :]] if len(names) > 2 else []
        for without in sorted(parts, key=len, reverse=True):
            nodes = {n: kind for n, kind in self.recording.nodes.items() if n not in without}
            if nodes and len(nodes) < len(self.recording.nodes):
                kept = [step for step in self.recording.steps if step[2:3] and step[2] in without]
                steps = [step for step in self.recording.steps if step not in kept]
                self._try(nodes, steps)

    def _chunks(self) -> None:
        """Leave out halves, quarters, and so on to single steps."""
        size = max(1, len(self.recording.steps) // 2)
        while True:
            at = len(self.recording.steps) - size
            while at > -size:
                steps = self.recording.steps
                at = min(at, len(steps) - size)
                low = max(at, 0)
                self._try(self.recording.nodes, [*steps[:low], *steps[low + size :]])
                at -= size
            if size == 1:
                return
            size //= 2

    def _requests(self) -> None:
        """Fewer runs in a request, and plainer ones."""
        for at, step in enumerate(self.recording.steps):
            if step[1] == "submit":
                for tasks in _plainer(step[3]):
                    steps = list(self.recording.steps)
                    steps[at] = (*step[:3], tasks)
                    if self._try(self.recording.nodes, steps):
                        break


def _plainer(tasks: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    if len(tasks) > 1:
        yield tasks[:1]
        yield from (tasks[:n] for n in range(2, len(tasks)))
    for at, fields in enumerate(tasks):
        for n, value in enumerate(PLAIN):
            if fields[n] != value:
                yield [*tasks[:at], (*fields[:n], value, *fields[n + 1 :]), *tasks[at + 1 :]]
