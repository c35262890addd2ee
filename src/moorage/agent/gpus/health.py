"""How well GPUs are: what NVIDIA's library and the kernel's log say, judged."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from moorage.agent.gpus.base import pci_address
from moorage.agent.gpus.devices import Devices
from moorage.agent.gpus.nvidia import Library, query
from moorage.protocol.health import GpuHealth, HealthState

_LOG = "/dev/kmsg"
_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)")
_XIDS: dict[int, tuple[HealthState, str]] = {
    48: ("failure", "uncorrectable memory error"),
    62: ("warning", "internal controller halted"),
    63: ("warning", "memory row remapped"),
    64: ("failure", "memory row could not be remapped"),
    74: ("warning", "NVLink error"),
    79: ("failure", "fell off the bus"),
    94: ("warning", "contained memory error"),
    95: ("failure", "uncontained memory error"),
    119: ("failure", "its system processor does not answer"),
    120: ("failure", "its system processor failed"),
}
"""Those of the hardware; the others are mostly made by programs."""
_HEAT = 0x20 | 0x40
"""Of the reasons why clocks are low: too hot, as the driver or the hardware found."""
_FULL_POWER = 0
ORDER: tuple[HealthState, ...] = ("healthy", "warning", "failure")


def examine(devices: Devices, seconds: float) -> list[GpuHealth]:
    """Every NVIDIA GPU that is not healthy, by the node's numbers; blocks. Others are not judged:
    an empty list where there is no library. Unreadable."""
    if not Library().present():
        return []
    xids = read_xids(_log_lines())
    found = []
    for one in query(seconds)["gpus"]:
        state, reason = judge(one, xids.get(pci_address(one.get("pci") or ""), ()))
        if state != "healthy":
            found += [GpuHealth(index, state, reason) for index in _indexes(devices, one)]
    return found


def judge(one: Mapping[str, Any], xids: tuple[int, ...] = ()) -> tuple[HealthState, str]:
    """State and reason of one GPU of a query: the worst decides, all are told."""
    found = list(_findings(one, xids))
    worst = max((state for state, _ in found), key=ORDER.index, default=ORDER[0])
    return worst, "; ".join(reason for _, reason in found)


def _findings(one: Mapping[str, Any], xids: tuple[int, ...]) -> Iterator[tuple[HealthState, str]]:
    if lost := one.get("lost"):
        yield "failure", f"the driver has lost it ({lost})"
    for code in dict.fromkeys(xids):
        state, meaning = _XIDS[code]
        yield state, f"XID {code}: {meaning}"
    has: Mapping[str, Any] = one.get("condition") or {}
    if errors := has.get("ecc"):
        yield "failure", f"{errors} uncorrected ECC errors since the driver was loaded"
    remapped = has.get("remapped") or (0, 0, 0, 0)
    if remapped[3]:
        yield "failure", "a memory row could not be remapped"
    if remapped[2] or has.get("retired_pending"):
        yield "warning", "bad memory waits for a reset to be put aside"
    yield from _connections(has)
    if (has.get("throttle") or 0) & _HEAT:
        yield "warning", "slowed down by heat"


def _connections(has: Mapping[str, Any]) -> Iterator[tuple[HealthState, str]]:
    width, most = has.get("width"), has.get("width_max")
    if width and most and width < most:
        yield "warning", f"PCIe has {width} of {most} lanes"
    speed, best = has.get("generation"), has.get("generation_max")
    # An idle GPU slows its bus down on purpose.
    if speed and best and speed < best and has.get("state") == _FULL_POWER:
        yield "warning", f"PCIe runs at generation {speed} of {best}"
    links = has.get("links") or []
    if any(links) and not all(links):
        yield "warning", f"{links.count(0)} of {len(links)} NVLinks are down"
    if errors := has.get("link_errors"):
        yield "warning", f"{errors} NVLink errors"


def read_xids(lines: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Codes that tell of broken hardware, by PCI address."""
    found: dict[str, tuple[int, ...]] = {}
    for line in lines:
        match = _XID.search(line)
        if match and int(match[2]) in _XIDS:
            place = pci_address(match[1] if "." in match[1] else f"{match[1]}.0")
            found[place] = (*found.get(place, ()), int(match[2]))
    return found


def _log_lines() -> Iterator[str]:
    """Of the kernel, since it was started; none where it may not be read."""
    try:
        log = os.open(_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        while True:
            try:
                yield os.read(log, 8192).decode(errors="replace")
            except OSError as error:
                if error.errno != errno.EPIPE:  # a line was overwritten meanwhile
                    return
    finally:
        os.close(log)


def _indexes(devices: Devices, one: Mapping[str, Any]) -> list[int]:
    """Of a GPU, or of all its slices."""
    place = pci_address(one.get("pci") or "")
    return [
        index
        for index, gpu in sorted(devices.gpus.items())
        if gpu.vendor == "nvidia"
        and (gpu.pci == place if place else gpu.number == one.get("index"))
    ]
