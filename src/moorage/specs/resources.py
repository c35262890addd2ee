"""What a job asks of a node. Bytes and CPUs as plain numbers: the grammars end in `load.py`."""

from __future__ import annotations

from msgspec import Struct


class Range(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`2..8`, `2..`, `..8`; an exact value has `min == max`. None means no bound."""

    min: float | None = None
    max: float | None = None


class Cpu(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """CPUs, optionally of one architecture (`x86` or `arm`)."""

    count: Range = Range(min=1)
    arch: str | None = None


class Gpu(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """GPUs. `memory` and `total_memory` in bytes; `compute_capability` as 8.6."""

    count: Range = Range(min=1)
    vendor: str | None = None
    name: list[str] = []
    memory: Range | None = None
    total_memory: Range | None = None
    compute_capability: Range | None = None


class Resources(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What must be free on a node. The lower bound is reserved; the upper bound is the limit.

    Where nothing is written, a job reserves one CPU and has no memory limit: dstack's defaults
    (2 CPUs, 8 GB, 100 GB of disk) choose among cloud offers, and would only keep jobs from small
    machines. See ADR 0005.
    """

    cpu: Cpu = Cpu()
    memory: Range | None = None
    """Bytes."""
    shm_size: int | None = None
    """Bytes; size of the private /dev/shm."""
    gpu: Gpu | None = None
    disk: Range | None = None
    """Bytes free where scratch lies."""
