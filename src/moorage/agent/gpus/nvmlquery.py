"""Asks NVIDIA's library, in a process of its own: `python -m moorage.agent.gpus.nvmlquery`.

The library may hang or crash with its driver, and keeps the devices open; the agent must not. One
JSON object on standard output; what a driver does not know is left out of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pynvml as nvml

_SLICES = 16
_LINKS = 18


def main() -> int:
    """The exit code: 1 where the library refuses, with its reason on standard error."""
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        print(f"NVML: {error}", file=sys.stderr)
        return 1
    found = [_device(index) for index in range(count)]
    json.dump({"driver": _try(nvml.nvmlSystemGetDriverVersion), "gpus": found}, sys.stdout)
    return 0


def _try(call: Callable[..., Any], *given: Any) -> Any:
    """None where this driver, library or GPU does not offer it."""
    try:
        found = call(*given)
    except nvml.NVMLError:
        return None
    return found.decode(errors="replace") if isinstance(found, bytes) else found


def _device(index: int) -> dict[str, Any]:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:  # fell off the bus
        return {"index": index, "lost": str(error)}
    memory = _try(nvml.nvmlDeviceGetMemoryInfo, handle)
    pci = _try(nvml.nvmlDeviceGetPciInfo, handle)
    bus = b"" if pci is None else getattr(pci, "busId", b"")
    return {
        "index": index,
        "name": _try(nvml.nvmlDeviceGetName, handle),
        "uuid": _try(nvml.nvmlDeviceGetUUID, handle),
        "memory": None if memory is None else memory.total,
        "pci": bus.decode() if isinstance(bus, bytes) else bus,
        "minor": _try(nvml.nvmlDeviceGetMinorNumber, handle),
        "capability": _try(nvml.nvmlDeviceGetCudaComputeCapability, handle),
        "slices": _slices(handle),
        "condition": _condition(handle),
    }


def _slices(handle: Any) -> list[dict[str, Any]] | None:
    """None where the GPU is not split."""
    mode = _try(nvml.nvmlDeviceGetMigMode, handle)
    if not mode or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        return None
    found = []
    for number in range(_try(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or _SLICES):
        part = _try(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        if part is None:
            continue
        memory = _try(nvml.nvmlDeviceGetMemoryInfo, part)
        found.append(
            {
                "name": _try(nvml.nvmlDeviceGetName, part),
                "uuid": _try(nvml.nvmlDeviceGetUUID, part),
                "memory": None if memory is None else memory.total,
                "gi": _try(nvml.nvmlDeviceGetGpuInstanceId, part),
                "ci": _try(nvml.nvmlDeviceGetComputeInstanceId, part),
            }
        )
    return found


def _condition(handle: Any) -> dict[str, Any]:
    """What `health.py` judges."""
    uncorrected, volatile = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
    pending = _try(nvml.nvmlDeviceGetRetiredPagesPendingStatus, handle)
    links = [_try(nvml.nvmlDeviceGetNvLinkState, handle, link) for link in range(_LINKS)]
    return {
        "ecc": _try(nvml.nvmlDeviceGetTotalEccErrors, handle, uncorrected, volatile),
        "remapped": _try(nvml.nvmlDeviceGetRemappedRows, handle),
        "retired_pending": pending,
        "width": _try(nvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
        "width_max": _try(nvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
        "generation": _try(nvml.nvmlDeviceGetCurrPcieLinkGeneration, handle),
        "generation_max": _try(nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
        "state": _try(nvml.nvmlDeviceGetPerformanceState, handle),
        "throttle": _try(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle),
        "links": [state for state in links if state is not None],
        "link_errors": _link_errors(handle, links),
    }


def _link_errors(handle: Any, links: list[int | None]) -> int:
    """Replays and recoveries: a link that has any transmitted something twice."""
    kinds = (nvml.NVML_NVLINK_ERROR_DL_REPLAY, nvml.NVML_NVLINK_ERROR_DL_RECOVERY)
    there = [link for link, state in enumerate(links) if state]
    counts = (
        _try(nvml.nvmlDeviceGetNvLinkErrorCounter, handle, link, kind)
        for link in there
        for kind in kinds
    )
    return sum(count or 0 for count in counts)


if __name__ == "__main__":
    sys.exit(main())
