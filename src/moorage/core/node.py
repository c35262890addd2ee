"""A node: what it has, what is reserved on it, and for which job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from moorage.core.shape import Shape, Where
from moorage.ids import JobId, NodeId
from moorage.protocol.agent import GpuDevice, Hello, Isolation, NodeResources
from moorage.protocol.api import NodeState
from moorage.protocol.health import Health
from moorage.specs.fleet import LOCAL, Blocks, Runtime

QUICK = 10.0
"""Seconds. What runs longer gains nothing from a line, and is better left free to go elsewhere."""


class Reservation(NamedTuple):
    """What one job took of a node."""

    millicpus: int
    memory: int
    disk: int
    gpus: tuple[int, ...]
    """Indexes of the GPUs."""


NOTHING = Reservation(0, 0, 0, ())


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
    """Unix seconds; None while it is connected, and after a server that died."""
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
    failed_gpus: frozenset[int] = field(default=frozenset(), compare=False)
    """Indexes of those that its agent says are broken: nobody gets them."""
    blocks: int = 0
    """Equal parts of which jobs take whole ones; 0: they share it by what they reserve."""
    runtime: Runtime = "any"
    """What its fleet lets jobs run as."""
    gone: bool = False
    """Its host left its fleet: only the past names it."""
    lost: bool = False
    """Away for longer than its lease: what was fenced there is over."""
    changes: list[float] = field(default_factory=list, compare=False)
    """When it went up or down, of late."""
    flapping: bool = field(default=False, compare=False)
    """Too often: no event tells each time until it has settled."""
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
        out = self.used_gpus | self.failed_gpus if self.failed_gpus else self.used_gpus
        return [gpu for gpu in self.resources.gpus if gpu.index not in out]

    @property
    def free_blocks(self) -> int:
        """Of a node that is split into blocks."""
        return self.blocks - sum(map(self._blocks_of, self.claims.values()))

    @property
    def used_cpus(self) -> float:
        """CPUs that are reserved."""
        return self.used_millicpus / 1000

    @property
    def room(self) -> object:
        """Nodes with equal room are equally good for every shape."""
        has = self.resources
        free = (self.free_millicpus, self.free_memory, self.free_disk)
        alone = self.id if has.gpus or self.blocks else None
        return (*free, has.arch, self.empty, alone, self.runtime)

    @property
    def empty(self) -> bool:
        """Does nothing run here, or stand in line?"""
        return not self.claims and not self.lines

    def fits(self, shape: Shape) -> bool:
        """Is there room now?"""
        # Asked for every shape and node of a pass: without the properties it takes a third.
        has = self.resources
        return (
            shape.millicpus <= has.cpus * 1000 - self.used_millicpus
            and shape.memory <= has.memory - self.used_memory
            and shape.disk <= has.disk - self.used_disk
            and ((shape.plain and self.runtime == "any") or self._suits(shape))
            and (not self.blocks or self.blocks_for(shape) <= self.free_blocks)
        )

    def _suits(self, shape: Shape) -> bool:
        return (
            shape.arch in (None, self.resources.arch)
            and (shape.gpu is None or shape.gpu.pick(self.free_gpus) is not None)
            and self.admitted(shape.where)
            and (not shape.exclusive or self.empty)
        )

    def split(self, blocks: Blocks | None) -> None:
        """Into so many blocks, as its host's spec says; `auto`: one for each GPU, else CPU."""
        has = self.resources
        self.blocks = (len(has.gpus) or has.cpus) if blocks == "auto" else blocks or 0

    def blocks_for(self, shape: Shape) -> int:
        """The fewest blocks that cover it; the GPUs that fit best, or the fewest it takes."""
        gpus: tuple[int, ...] = ()
        if shape.gpu is not None:
            gpus = shape.gpu.pick(self.free_gpus) or tuple(range(shape.gpu.count))
        return self._blocks_of(self.claim(shape, gpus))

    def _blocks_of(self, claim: Reservation) -> int:
        has = self.resources
        parts = (
            (claim.millicpus, has.cpus * 1000),
            (claim.memory, has.memory),
            (claim.disk, has.disk),
            (len(claim.gpus), len(has.gpus)),
        )
        return max(1, *(-(-part * self.blocks // whole) for part, whole in parts if whole))

    def claim(self, shape: Shape, gpus: tuple[int, ...]) -> Reservation:
        """What a job of this shape takes here: everything, where it wants the node alone. It sees
        no other GPUs than these even so."""
        if shape.exclusive:
            has = self.resources
            return Reservation(has.cpus * 1000, has.memory, has.disk, gpus)
        return Reservation(shape.millicpus, shape.memory, shape.disk, gpus)

    def _pick(self, shape: Shape) -> tuple[int, ...]:
        """GPUs for a shape that fits: of whole blocks as many as it may have."""
        free = self.free_gpus
        gpus = () if shape.gpu is None else shape.gpu.pick(free)
        if not gpus:
            return ()
        if not self.blocks or shape.gpu is None:
            return gpus
        taken = self._blocks_of(self.claim(shape, gpus))
        return shape.gpu.widen(gpus, free, taken * len(self.resources.gpus) // self.blocks)

    def admitted(self, where: Where | None) -> bool:
        """Is it among the nodes that a job may use?"""
        kind = "container" if where is not None and where.contained else "process"
        if kind == "container" and self.isolation.containers is not None:
            return False
        if where is not None and where.docker and self.isolation.docker is not None:
            return False
        if where is not None and where.durable and self.isolation.fsync is not None:
            return False
        return self.runtime in ("any", kind) and self.named(where)

    def named(self, where: Where | None) -> bool:
        """The same, whatever its jobs may run as."""
        return where is None or where.admits(self.fleet, self.name, self.hostname)

    def times(self, shape: Shape) -> int:
        """How many jobs of a shape that `fits` have room, as far as it asks for no GPUs."""
        times = self.free_millicpus // shape.millicpus
        if shape.memory:
            times = min(times, self.free_memory // shape.memory)
        if self.blocks:
            times = min(times, self.free_blocks // self.blocks_for(shape))
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

    def fits_sound(self, shape: Shape) -> bool:
        """As `fits_empty`, with the GPUs that have not failed."""
        if not self.fits_empty(shape):
            return False
        if shape.gpu is None or not self.failed_gpus:
            return True
        sound = (gpu for gpu in self.resources.gpus if gpu.index not in self.failed_gpus)
        return shape.gpu.pick(sound) is not None

    def reserve(self, job: JobId, shape: Shape) -> Reservation:
        """Take what `shape` asks for; the caller made sure that it fits."""
        if shape.plain:
            claim = Reservation(shape.millicpus, shape.memory, shape.disk, ())
        else:
            claim = self.claim(shape, self._pick(shape))
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

    def greet(self, hello: Hello) -> None:
        """Its agent connected and said what the node is now."""
        self.boot_id = hello.boot_id
        self.version = hello.version
        self.resources = hello.resources
        self.isolation = hello.isolation
        self.pythons = list(hello.pythons)
        self.up = True
        self.lost = False
        self.ghosts.clear()
        self.last_seen = None
        self.address = hello.address
