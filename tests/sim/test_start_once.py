"""The core against a world that fails: agents and the server crash, nodes reboot, connections drop
with what was in flight, reports come late and twice. After every step the promises must hold.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from moorage.protocol.agent import Outcome
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.retry import Retry
from moorage.specs.schedule import Schedule
from moorage.specs.task import Task
from sim.machine import NODES
from sim.world import World

SEEDS = range(48)
STEPS = 400
CPUS = (Range(0.5), Range(1, 2), Range(2), Range(4))
MEMORY = (None, Range(8), Range(20))
GPU = (None, None, Gpu())
PRIORITY = (0, 0, 50)
RETRY = (None, Retry(), Retry(("interruption",), 20.0))
SCHEDULE = (None, None, None, Schedule(["*/2 * * * *"]))
ENDS = (
    Outcome("exited", exit_code=0),
    Outcome("exited", exit_code=1, message="command 1 of 1 failed with exit code 1"),
    Outcome("out-of-memory", signal=9),
    Outcome("timeout"),
    Outcome("lost", message="the keeper died"),
)

names = st.sampled_from(sorted(NODES))
numbers = st.integers(0, 9)
tasks = st.builds(
    Task,
    resources=st.builds(
        Resources,
        cpu=st.builds(Cpu, st.sampled_from(CPUS)),
        memory=st.sampled_from(MEMORY),
        gpu=st.sampled_from(GPU),
    ),
    priority=st.sampled_from(PRIORITY),
    retry=st.sampled_from(RETRY),
    schedule=st.sampled_from(SCHEDULE),
)


class Rules(RuleBasedStateMachine):
    """Short walks of Hypothesis' choice, made shorter still when one breaks a promise."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def teardown(self) -> None:
        with closing(self.world):
            self.world.heal()

    @invariant()
    def promises(self) -> None:
        self.world.promises()

    @rule(some=st.lists(tasks, min_size=1, max_size=3))
    def submit(self, some: list[Task]) -> None:
        self.world.submit(some)
        self.world.place()

    @rule(batches=numbers)
    def commit(self, batches: int) -> None:
        self.world.commit(batches)

    @rule(name=names, messages=numbers)
    def deliver(self, name: str, messages: int) -> None:
        self.world.deliver(name, messages)

    @rule()
    def all_goes_well(self) -> None:
        """All connect, and what is decided arrives: so trouble finds attempts in every state."""
        for name, machine in self.world.machines.items():
            if not machine.connected:
                self.world.connect(name)
        self.world.ring()
        self.world.place()
        self.world.commit(1000)
        for name in NODES:
            self.world.deliver(name, 1000)
            self.world.report(name, True)

    @rule(name=names, first=st.integers(0, 2), outcome=st.sampled_from(ENDS))
    def attempts_get_on(self, name: str, first: int, outcome: Outcome) -> None:
        self.world.attempts_get_on(name, first, outcome)

    @rule(name=names, arrives=st.booleans())
    def report(self, name: str, arrives: bool) -> None:
        self.world.report(name, arrives)

    @rule(name=names, number=numbers)
    def old_report(self, name: str, number: int) -> None:
        self.world.old_report(name, number)

    @rule(number=numbers, abort=st.booleans())
    def cancel(self, number: int, abort: bool) -> None:
        self.world.cancel(number, abort)

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        self.world.delete(number)

    @rule(name=names, noticed=st.booleans())
    def reconnect(self, name: str, noticed: bool) -> None:
        self.world.drop(name, noticed)
        self.world.connect(name)

    @rule()
    def server_crashes(self) -> None:
        self.world.server_crashes()

    @rule(name=names)
    def agent_restarts(self, name: str) -> None:
        self.world.agent_restarts(name)
        self.world.connect(name)

    @rule(name=names, keeps_claims=st.booleans())
    def node_reboots(self, name: str, keeps_claims: bool) -> None:
        self.world.node_reboots(name, keeps_claims)
        self.world.connect(name)


TestRules = Rules.TestCase
TestRules.settings = settings(
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    database=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)


def actions(world: World, dice: random.Random) -> Sequence[tuple[float, Callable[[], None]]]:
    """What may happen next, with its weight."""
    name = dice.choice(sorted(NODES))
    number, yes = dice.randrange(10), dice.random() < 0.5
    return (
        (2, partial(world.submit, [any_task(dice) for _ in range(dice.randint(1, 3))])),
        (6, world.place),
        (12, partial(world.commit, number)),
        (1, partial(world.cancel, number, yes)),
        (6, world.ring),
        (1, partial(world.delete, number)),
        (1, world.server_crashes),
        (5, partial(world.connect, name)),
        (1, partial(world.drop, name, yes)),
        (15, partial(world.deliver, name, number)),
        (10, partial(world.report, name, number > 2)),
        (4, partial(world.old_report, name, number)),
        (9, partial(world.attempts_get_on, name, number // 4, dice.choice(ENDS))),
        (1, partial(world.agent_restarts, name)),
        (2, partial(world.node_reboots, name, yes)),
    )


def any_task(dice: random.Random) -> Task:
    return Task(
        resources=Resources(
            cpu=Cpu(dice.choice(CPUS)), memory=dice.choice(MEMORY), gpu=dice.choice(GPU)
        ),
        priority=dice.choice(PRIORITY),
        retry=dice.choice(RETRY),
        schedule=dice.choice(SCHEDULE),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_long_walks(seed: int) -> None:
    """The seed is in the name of the test: the same seed takes the same walk."""
    dice = random.Random(seed)
    with closing(World()) as world:
        for _ in range(STEPS):
            weights, steps = zip(*actions(world, dice), strict=True)
            dice.choices(steps, weights)[0]()
            world.promises()
        world.heal()
