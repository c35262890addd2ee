"""What a vendor's module gives: the GPUs it finds, or one line that says why it cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MIB = 1024 * 1024


class Unreadable(Exception):
    """A vendor's tool failed or makes no sense; one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU, or one MIG slice of one. Memory in bytes; what is unknown is empty or 0."""

    vendor: str
    number: int
    """The vendor's own: what its tools and variables call it. A slice has its parent's."""
    name: str
    memory: int
    uuid: str = ""
    pci: str = ""
    """`0000:18:00.0`; a slice has its parent's."""
    compute_capability: float = 0.0
    driver: str = ""
    slice: str = ""
    """Which part of its parent it is; empty for a whole GPU."""
    nodes: tuple[str, ...] = ()
    """Device nodes that are its own (a slice shares its parent's with other slices)."""

    @property
    def identity(self) -> str:
        """What stays the same as long as the hardware does."""
        return self.uuid or f"{self.vendor} {self.pci or self.number} {self.slice}".strip()


class Vendor(Protocol):
    """One way to learn of GPUs. Contract: `tests/contract/test_gpu_discovery.py`."""

    name: str

    def present(self) -> bool:
        """Is what it needs installed? Starts nothing."""

    def find(self, seconds: float) -> Sequence[Gpu]:
        """All GPUs that work, within this time; blocks. Changes nothing. Unreadable."""


def pci_address(text: str) -> str:
    """As the kernel writes it: `00000000:18:00.0` (NVIDIA's) becomes `0000:18:00.0`."""
    domain, _, rest = text.strip().lower().partition(":")
    return f"{domain[-4:]}:{rest}" if rest.count(":") == 1 else text.strip().lower()
