"""A node: what it has, what is reserved on it, and for which job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from moorage.core.shape import Shape, Where
from moorage.ids import JobId, NodeId
from moorage.protocol.agent import GpuDevice, Hello, Isolation, NodeResources
from moorage.protocol.api import NodeState
from moorage.protocol.health import Health
from moorage.specs.fleet import LOCAL

QUICK = 10.0
"""Seconds. What runs longer gains nothing from a line, and is better left free to go elsewhere."""


class Reservation(NamedTuple):
    """What one job took of a node."""

    millicpus: int
    memory: int
    disk: int
    gpus: tuple[int, ...]
    """Indexes of the GPUs."""


@dataclass(slots=True)
class Node:
    """A machine with an agent. `up`: its agent is connected."""

    id: NodeId
    name: str
    boot_id: str
    version: str
    resources: NodeResources
    isolation: Isolation
    pythons: list[str]
    up: bool
    last_seen: float | None
    address: str = ""
    """Where other nodes reach it; empty: only on the machine itself."""
    fleet: str = LOCAL
    hostname: str = ""
    """As its fleet's file names it; empty for the server's own machine."""
    draining: bool = False
    """Nothing new starts here."""
    health: str = ""
    """Why it takes nothing new, though nobody said so; empty while it is well."""
    condition: Health = field(default=Health(), compare=False)
    """As its agent said last."""
    gone: bool = False
    """Its host left its fleet: only the past names it."""
    lost: bool = False
    """Away for longer than its lease: what was fenced there is over."""
    ghosts: set[str] = field(default_factory=set, compare=False)
    """Attempts that it holds and that were given up: until they are over they take room."""
    claims: dict[JobId, Reservation] = field(default_factory=dict)
    """Jobs that are starting, running or finishing here. Changed by `reserve` and `release`."""
    lines: dict[Shape, dict[JobId, None]] = field(default_factory=dict)
    """Jobs that wait here for the place of another of their shape, in their order."""
    quick: set[Shape] = field(default_factory=set, compare=False)
    """Shapes of which the latest attempt here was short: only there a line is worth having."""
    dropped_logs: dict[str, None] = field(default_factory=dict)
    """Attempts of deleted runs whose output it has not yet said to be gone."""
    used_millicpus: int = 0
    used_memory: int = 0
    used_disk: int = 0
    used_gpus: set[int] = field(default_factory=set)

    @property
    def open(self) -> bool:
        """May something new start here?"""
        return self.up and not self.draining and not self.health and not self.ghosts

    @property
    def state(self) -> NodeState:
        """As users see it."""
        if self.up:
            return "up"
        return "lost" if self.lost else "down"

    @property
    def free_millicpus(self) -> int:
        return self.resources.cpus * 1000 - self.used_millicpus

    @property
    def free_memory(self) -> int:
        return self.resources.memory - self.used_memory

    @property
    def free_disk(self) -> int:
        return self.resources.disk - self.used_disk

    @property
    def free_gpus(self) -> list[GpuDevice]:
        return [gpu for gpu in self.resources.gpus if gpu.index not in self.used_gpus]

    @property
    def used_cpus(self) -> float:
        """CPUs that are reserved."""
        return self.used_millicpus / 1000

    @property
    def room(self) -> object:
        """Nodes with equal room are equally good for every shape."""
        has = self.resources
        free = (self.free_millicpus, self.free_memory, self.free_disk)
        return (*free, has.arch, self.id if has.gpus else None)

    def fits(self, shape: Shape) -> bool:
        """Is there room now?"""
        # Asked for every shape and node of a pass: without the properties it takes a third.
        has = self.resources
        return (
            shape.millicpus <= has.cpus * 1000 - self.used_millicpus
            and shape.memory <= has.memory - self.used_memory
            and shape.disk <= has.disk - self.used_disk
            and (shape.arch is None or shape.arch == has.arch)
            and (shape.gpu is None or shape.gpu.pick(self.free_gpus) is not None)
            and (shape.where is None or self.admitted(shape.where))
        )

    def admitted(self, where: Where | None) -> bool:
        """Is it among the nodes that a job may use?"""
        if where is None:
            return True
        if where.contained and self.isolation.containers is not None:
            return False
        return where.admits(self.fleet, self.name, self.hostname)

    def times(self, shape: Shape) -> int:
        """How many jobs of a shape that `fits` have room, as far as it asks for no GPUs."""
        times = self.free_millicpus // shape.millicpus
        if shape.memory:
            times = min(times, self.free_memory // shape.memory)
        return min(times, self.free_disk // shape.disk) if shape.disk else times

    def fits_empty(self, shape: Shape) -> bool:
        """Would there be room if nothing else ran?"""
        has = self.resources
        return (
            shape.millicpus <= has.cpus * 1000
            and shape.memory <= has.memory
            and shape.disk <= has.disk
            and shape.arch in (None, has.arch)
            and (shape.gpu is None or shape.gpu.pick(has.gpus) is not None)
            and self.admitted(shape.where)
        )

    def reserve(self, job: JobId, shape: Shape) -> Reservation:
        """Take what `shape` asks for; the caller made sure that it fits."""
        gpus = None if shape.gpu is None else shape.gpu.pick(self.free_gpus)
        claim = Reservation(shape.millicpus, shape.memory, shape.disk, gpus or ())
        self.restore(job, claim)
        return claim

    def restore(self, job: JobId, claim: Reservation) -> None:
        """Take exactly this, fit or not: the job is there already."""
        self.claims[job] = claim
        self.used_millicpus += claim.millicpus
        self.used_memory += claim.memory
        self.used_disk += claim.disk
        if claim.gpus:
            self.used_gpus.update(claim.gpus)

    def release(self, job: JobId) -> None:
        """Give back all that the job took."""
        claim = self.claims.pop(job)
        self.used_millicpus -= claim.millicpus
        self.used_memory -= claim.memory
        self.used_disk -= claim.disk
        self.used_gpus.difference_update(claim.gpus)

    def enqueue(self, job: JobId, shape: Shape) -> None:
        """Put it at the end of the line of its shape."""
        self.lines.setdefault(shape, {})[job] = None

    def dequeue(self, job: JobId, shape: Shape) -> None:
        """Take it out of the line."""
        line = self.lines[shape]
        del line[job]
        if not line:
            del self.lines[shape]

    def learn(self, shape: Shape, lasted: float) -> None:
        """An attempt of this shape ran so many seconds here."""
        if shape.line and lasted <= QUICK:
            self.quick.add(shape)
        else:
            self.quick.discard(shape)

    def greet(self, hello: Hello, now: float) -> None:
        """Its agent connected and said what the node is now."""
        self.boot_id = hello.boot_id
        self.version = hello.version
        self.resources = hello.resources
        self.isolation = hello.isolation
        self.pythons = list(hello.pythons)
        self.up = True
        self.lost = False
        self.ghosts.clear()
        self.last_seen = now
        self.address = hello.address
