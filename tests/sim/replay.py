"""Runs schedules that were recorded, and makes those that fail as short as they can be.

`python -m sim` in `tests/` does both from a shell.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from sim.heal import heal
from sim.ledger import Broken
from sim.schedule import FAULTS
from sim.world import Step, World

PATIENCE = 400_000
"""Steps that are replayed to make a failure shorter: about a minute."""
HEALING = 300
"""What the end of each replay costs, in steps."""
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


def replay(recording: Recording) -> Failure | None:
    """Carry it out, heal, and say what broke."""
    return _play(recording)[0]


def _play(recording: Recording) -> tuple[Failure | None, list[Step]]:
    """Also the steps that did something, until it failed."""
    steps: list[Step] = []
    try:
        with closing(World(recording.nodes)) as world:
            for step in recording.steps:
                steps.append(step)
                if not world.do(step):
                    steps.pop()
                world.appeared.clear()
            if world.leader.alive:
                world.promises.everything()
            heal(world)
    except Exception as error:
        return failure(error, len(steps)), steps
    return None, steps


def failure(error: Exception, done: int) -> Failure:
    """Errors of the product itself are known by where they were raised."""
    if isinstance(error, Broken):
        return Failure(error.promise, str(error), done)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    name = f"{type(error).__name__} in {frame.name}"
    return Failure(name, f"{name}: {error}", done)


class Shrinking:
    """`recording` fails, and becomes shorter as long as it fails in the same way."""

    def __init__(self, recording: Recording, promise: str, enough: int = 0) -> None:
        self.recording = recording
        self.enough = enough
        """Steps that are few enough to stop at."""
        self.promise = promise
        self.patience = PATIENCE

    def run(self) -> Recording:
        """The shortest that was found: fewer nodes, requests, faults of a kind, then steps."""
        before = -1
        while before != self._size():
            before = self._size()
            self._latest()
            self._nodes()
            self._leave_out(_label)
            self._leave_out(_fault)
            self._leave_out(_node)
            self._leave_out(id)
            self._requests()
        return self.recording

    def _size(self) -> int:
        return len(self.recording.dumps())

    def _try(self, nodes: dict[str, str], steps: Sequence[Step]) -> bool:
        if self.patience < 0 or len(self.recording.steps) <= self.enough:
            return False
        self.patience -= len(steps) + HEALING
        failed, did = _play(Recording(nodes, steps))
        if failed is None or failed.promise != self.promise:
            return False
        self.recording = Recording(nodes, did)
        return True

    def _latest(self) -> None:
        """What matters is often the last few steps: they cost least to try."""
        size = 8
        while size < len(self.recording.steps):
            if self._try(self.recording.nodes, self.recording.steps[-size:]):
                return
            size = size * 3 // 2

    def _nodes(self) -> None:
        """All but one, all but half, all but each."""
        for size in (len(self.recording.nodes) - 1, len(self.recording.nodes) // 2, 1):
            for names in _chunks(list(self.recording.nodes), size):
                nodes = {n: k for n, k in self.recording.nodes.items() if n not in names}
                if nodes and names:
                    steps = [step for step in self.recording.steps if _node(step) not in names]
                    self._try(nodes, steps)

    def _leave_out(self, key: Callable[[Step], Hashable]) -> None:
        """Steps of one key together: half of the keys, a quarter, and so on to each alone."""
        keys = list(dict.fromkeys(key(step) for step in self.recording.steps))
        size = (len(keys) + 1) // 2
        while size:
            for chunk in _chunks(keys, size):
                without = set(chunk) - {None}
                steps = [step for step in self.recording.steps if key(step) not in without]
                if len(steps) < len(self.recording.steps):
                    self._try(self.recording.nodes, steps)
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


def _chunks(keys: list[Any], size: int) -> Iterator[list[Any]]:
    """From the end, where what matters least mostly is."""
    for at in range(len(keys), 0, -max(1, size)):
        yield keys[max(0, at - size) : at]


def _label(step: Step) -> str | None:
    """The request that a step is about."""
    match step:
        case (_, "submit" | "cancel" | "delete", str(run), *_) | (_, "go", _, str(run), *_):
            return run.split(".")[0]
    return None


def _fault(step: Step) -> str | None:
    return step[1] if step[1] in FAULTS else None


def _node(step: Step) -> str | None:
    return None if _label(step) and step[1] != "go" else next(iter(step[2:3]), None)


def _plainer(tasks: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    if len(tasks) > 1:
        yield tasks[:1]
        yield from (tasks[:n] for n in range(2, len(tasks)))
    for at, fields in enumerate(tasks):
        for n, value in enumerate(PLAIN):
            if fields[n] != value:
                yield [*tasks[:at], (*fields[:n], value, *fields[n + 1 :]), *tasks[at + 1 :]]
