"""What a job asks of a node, reduced to what placement compares: jobs of one shape are alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2s
from itertools import groupby
from math import ceil, inf

from moorage.protocol.agent import GpuDevice
from moorage.specs.mounts import Bucket
from moorage.specs.resources import Gpu, Range, Resources
from moorage.specs.task import Task

Bounds = tuple[float, float]
_SLICE = "mig"


@dataclass(frozen=True, slots=True)
class GpuShape:
    """`count` GPUs of one model; more, up to `most`, where `total` memory takes more. Bytes."""

    count: int
    most: float
    vendor: str | None
    names: tuple[str, ...]
    memory: Bounds
    total: Bounds
    capability: Bounds

    def matches(self, device: GpuDevice) -> bool:
        return (
            self.vendor in (None, device.vendor.lower())
            and (not self.names or _model(device.name, self.names))
            and self.memory[0] <= device.memory <= self.memory[1]
            and self.capability[0] <= device.compute_capability <= self.capability[1]
        )

    def pick(self, devices: Iterable[GpuDevice]) -> tuple[int, ...] | None:
        """Indexes of devices that satisfy this, of the smallest model that does; None if none do.
        Models are never mixed: ranks that wait for each other would run at the slowest."""
        fitting = sorted((d for d in devices if self.matches(d)), key=_by_model)
        for _, group in groupby(fitting, key=lambda d: (d.memory, d.name)):
            model = list(group)
            for count in self._counts(len(model)):
                if self.total[0] <= count * model[0].memory <= self.total[1]:
                    return tuple(d.index for d in model[:count])
        return None

    def widen(
        self, picked: tuple[int, ...], devices: Iterable[GpuDevice], share: int
    ) -> tuple[int, ...]:
        """What was picked, and more of the same model: `share` in all, as far as this allows."""
        known = {device.index: device for device in devices}
        model = known[picked[0]]
        most = min(share, self.most, self.total[1] // model.memory if model.memory else inf)
        alike = [
            index
            for index, one in sorted(known.items())
            if index not in picked and (one.memory, one.name) == (model.memory, model.name)
        ]
        return (*picked, *alike[: max(0, int(most) - len(picked))])

    def _counts(self, there: int) -> Iterator[int]:
        return iter(range(self.count, int(min(there, self.most)) + 1))


@dataclass(frozen=True, slots=True)
class Where:
    """Which nodes a job may use: those of a fleet, and those that are named. Empty: any."""

    fleets: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    hostnames: tuple[str, ...] = ()
    contained: bool = False
    """Only those that can run containers."""
    docker: bool = False
    """Only those that give a job a Docker daemon of its own."""
    durable: bool = False
    """Only those on which `fsync` can wait for uploads."""
    without: frozenset[str] = field(default=frozenset(), repr=False)
    """Names of nodes that will not do."""
    hearsay: bool = field(default=False, repr=False)
    """Some of these only said so: only this process knows that."""

    def admits(self, fleet: str, node: str, hostname: str) -> bool:
        """Is a node of this fleet, with this name, on this host, among them?"""
        if self.fleets and fleet not in self.fleets:
            return False
        if node in self.without:
            return False
        named = self.nodes or self.hostnames
        return not named or node in self.nodes or hostname in self.hostnames

    @property
    def digest(self) -> str:
        """Short, and the same in every process."""
        text = f"{self!r}{tuple(sorted(self.without)) or ''}"
        return blake2s(text.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class Shape:
    """What one job reserves. CPUs in thousandths, so that sums of fractions stay exact; bytes."""

    millicpus: int
    memory: int
    disk: int
    arch: str | None
    gpu: GpuShape | None
    where: Where | None = None
    """None: any node will do."""
    exclusive: bool = False
    """It wants the node alone."""
    plain: bool = field(init=False, repr=False, compare=False)
    """It asks for nothing but CPUs, memory and disk."""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values = (self.millicpus, self.memory, self.disk, self.arch, self.gpu, self.where)
        plain = self.arch is None and self.gpu is None and self.where is None
        object.__setattr__(self, "plain", plain and not self.exclusive)
        object.__setattr__(self, "_hash", hash((*values, self.exclusive)))

    def __hash__(self) -> int:
        # Shapes are keys everywhere.
        return self._hash

    @property
    def line(self) -> str:
        """The name of the line in which jobs of this shape wait on a full node; empty for those
        that never do: which GPUs a successor gets is the server's to choose, what wants a node
        alone follows nobody, and another server would not know the line of what is hearsay."""
        if self.gpu is not None or self.exclusive:
            return ""
        if self.where is not None and self.where.hearsay:
            return ""
        name = f"{self.millicpus}-{self.memory}-{self.disk}-{self.arch or 'any'}"
        return name if self.where is None else f"{name}-{self.where.digest}"


def where_of(task: Task) -> Where | None:
    """Where the task's `fleets` and `instances` let it run; None: anywhere."""
    durable = any(isinstance(one, Bucket) and one.durable == "fsync" for one in task.mounts)
    anywhere = task.image is None and not task.docker and not durable
    if not task.fleets and not task.instances and anywhere:
        return None
    return Where(
        tuple(sorted(task.fleets)),
        tuple(sorted(one.name for one in task.instances if one.name)),
        tuple(sorted(one.hostname for one in task.instances if one.hostname)),
        task.image is not None,
        task.docker,
        durable,
    )


def shape_of(
    resources: Resources, where: Where | None = None, *, exclusive: bool = False
) -> Shape:
    """The lower bounds of a request; where only an upper one is given, nothing is reserved
    (CPUs: one, or the upper bound if that is less)."""
    count = resources.cpu.count
    cpus = min(1.0, _upper(count)) if count.min is None else count.min
    return Shape(
        millicpus=max(1, round(cpus * 1000)),
        memory=ceil(_lower(resources.memory)),
        disk=ceil(_lower(resources.disk)),
        arch=resources.cpu.arch,
        gpu=_gpu_shape(resources.gpu),
        where=where,
        exclusive=exclusive,
    )


def shapes_of(task: Task) -> tuple[Shape, ...]:
    """One a rank."""
    where = where_of(task)
    if not task.groups:
        return (shape_of(task.resources, where, exclusive=task.exclusive),) * task.nodes
    kinds = (
        (shape_of(group.resources, where, exclusive=task.exclusive), group.nodes)
        for group in task.groups
    )
    return tuple(shape for shape, nodes in kinds for _ in range(nodes))


def _gpu_shape(gpu: Gpu | None) -> GpuShape | None:
    if gpu is None or not (count := int(_lower(gpu.count))):
        return None
    return GpuShape(
        count=count,
        most=_upper(gpu.count),
        vendor=gpu.vendor.lower() if gpu.vendor else None,
        names=tuple(_plain(name) for name in gpu.name),
        memory=_bounds(gpu.memory),
        total=_bounds(gpu.total_memory),
        capability=_bounds(gpu.compute_capability),
    )


def _bounds(span: Range | None) -> Bounds:
    return (_lower(span), _upper(span))


def _lower(span: Range | None) -> float:
    return 0 if span is None or span.min is None else span.min


def _upper(span: Range | None) -> float:
    return inf if span is None or span.max is None else span.max


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _model(name: str, wanted: tuple[str, ...]) -> bool:
    """`NVIDIA A100-SXM4-80GB` is an `A100`; drivers decorate names, users do not, and run their
    words together (`RTX4090`). A slice (`... MIG 1g.5gb`) goes by its own name, or by `MIG`."""
    words = [_plain(word) for word in name.replace("-", " ").split()]
    if _SLICE in words:
        words = words[words.index(_SLICE) :]
    return any(_among(words, want) or want == _plain(name) for want in wanted)


def _among(words: list[str], want: str) -> bool:
    """Is it one of the words, or several in a row?"""
    for begin in range(len(words)):
        joined = ""
        for word in words[begin:]:
            joined += word
            if joined == want:
                return True
            if not want.startswith(joined):
                break
    return False


def _by_model(device: GpuDevice) -> tuple[int, str, int]:
    return (device.memory, device.name, device.index)
