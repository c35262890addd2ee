"""The GPUs of this node by the numbers that the server knows, and what a job sees of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from moorage.agent.gpus.base import Gpu
from moorage.protocol.agent import GpuDevice

_SHARED = {
    "nvidia": (
        "/dev/nvidiactl",
        "/dev/nvidia-uvm",
        "/dev/nvidia-uvm-tools",
        "/dev/nvidia-modeset",
    ),
    "amd": ("/dev/kfd",),
}
"""Nodes of the driver, which every job with one of its GPUs needs."""
_PCI = "/sys/bus/pci/devices"


@dataclass(frozen=True, slots=True)
class Devices:
    """`gpus` by index; `notes` say what could not be found out, one line each."""

    gpus: Mapping[int, Gpu] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def reported(self) -> list[GpuDevice]:
        """As the server is told."""
        return [
            GpuDevice(
                index,
                gpu.vendor,
                gpu.name,
                gpu.memory,
                gpu.compute_capability,
                gpu.uuid,
                gpu.pci,
                gpu.driver,
            )
            for index, gpu in sorted(self.gpus.items())
        ]

    def problem(self, mine: Iterable[int]) -> str:
        """Why a job cannot have these; empty where it can."""
        gone = [str(index) for index in sorted(mine) if index not in self.gpus]
        if not gone:
            return ""
        return f"GPU {', '.join(gone)} of this node is gone; see `moorage node show`"

    def variables(self, mine: Iterable[int]) -> dict[str, str]:
        """What makes the vendors' libraries show these GPUs and no others."""
        own = [self.gpus[index] for index in sorted(mine) if index in self.gpus]
        vendors = {gpu.vendor for gpu in self.gpus.values()}
        by = {name: [gpu for gpu in own if gpu.vendor == name] for name in vendors}
        found: dict[str, str] = {}
        if "nvidia" in vendors or not vendors:
            found |= _nvidia(by.get("nvidia", []))
        if "amd" in vendors:
            found["ROCR_VISIBLE_DEVICES"] = _numbers(by["amd"])
            # HIP counts among those that the line above leaves.
            found["HIP_VISIBLE_DEVICES"] = ",".join(map(str, range(len(by["amd"]))))
        if by.get("intel"):  # empty would mean all of them
            found["ZE_AFFINITY_MASK"] = _numbers(by["intel"])
        if by.get("tenstorrent"):
            found["TT_VISIBLE_DEVICES"] = _numbers(by["tenstorrent"])
        return found

    def granted(self, mine: Iterable[int]) -> list[str]:
        """Device nodes that a job with these GPUs needs, those of the driver included."""
        own = [self.gpus[index] for index in sorted(mine) if index in self.gpus]
        shared = [path for gpu in own for path in _SHARED.get(gpu.vendor, ())]
        return list(dict.fromkeys([*shared, *(path for gpu in own for path in nodes_of(gpu))]))

    def denied(self, mine: Iterable[int]) -> list[str]:
        """Device nodes of GPUs that are not the job's."""
        own = set(self.granted(mine))
        every = (path for _, gpu in sorted(self.gpus.items()) for path in nodes_of(gpu))
        return [path for path in dict.fromkeys(every) if path not in own]


NONE = Devices()


def nodes_of(gpu: Gpu) -> list[str]:
    """Device nodes that belong to this GPU: the vendor's, and those for graphics."""
    found = list(gpu.nodes)
    if gpu.pci and not gpu.slice:
        with suppress(OSError):
            for name in sorted(os.listdir(f"{_PCI}/{gpu.pci}/drm")):  # noqa: PTH208 (names)
                if name.startswith(("card", "renderD")):
                    found.append(f"/dev/dri/{name}")
    return found


def rules(paths: Sequence[str]) -> list[str]:
    """`c 195:0` for each node that there is, as the kernel's devices controller names it."""
    found = []
    for path in paths:
        with suppress(OSError):
            node = os.stat(path)  # noqa: PTH116 (for every job)
            if stat.S_ISCHR(node.st_mode):
                found.append(f"c {os.major(node.st_rdev)}:{os.minor(node.st_rdev)}")
    return found


def _nvidia(own: Sequence[Gpu]) -> dict[str, str]:
    names = ",".join(gpu.uuid or str(gpu.number) for gpu in own)
    # Unset or empty, the second would make a container runtime give all of them.
    return {
        "CUDA_VISIBLE_DEVICES": names,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "NVIDIA_VISIBLE_DEVICES": names or "void",
    }


def _numbers(own: Sequence[Gpu]) -> str:
    return ",".join(str(gpu.number) for gpu in own)
