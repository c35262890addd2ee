"""NVIDIA's GPUs: from its library, else from `nvidia-smi`."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from moorage.agent.gpus.base import MIB, Gpu, Unreadable, pci_address
from moorage.agent.gpus.tool import ask, which

LIBRARY = "libnvidia-ml.so.1"
_QUERY = ("-m", "moorage.agent.gpus.nvmlquery")
_CAPABILITIES = Path("/proc/driver/nvidia-caps/mig-minors")
_FIELDS = ("index", "name", "memory.total", "uuid", "pci.bus_id", "driver_version", "compute_cap")


def query(seconds: float) -> dict[str, Any]:
    """All that the library says: `driver` and `gpus`, each with its `condition`. Unreadable."""
    text = ask([sys.executable, *_QUERY], seconds, LIBRARY)
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        raise Unreadable(f"{LIBRARY} gave no answer") from None
    return found


class Library:
    """The driver's own library, NVML; tells slices too."""

    name = "nvidia"

    def present(self) -> bool:
        """Can it be loaded, here or in a process that is started now?"""
        paths = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
        if any((Path(path) / LIBRARY).exists() for path in paths if path):
            return True
        with suppress(OSError):
            ctypes.CDLL(LIBRARY)
            return True
        return False

    def find(self, seconds: float) -> Sequence[Gpu]:
        """Whole GPUs, and in place of one that is split, its slices. Unreadable."""
        said = query(seconds)
        found: list[Gpu] = []
        for one in said["gpus"]:
            if not one.get("name") or not one.get("memory"):
                continue  # it fell off the bus
            whole = _whole(one, said.get("driver") or "")
            parts = one.get("slices")
            found += [whole] if parts is None else [_part(whole, one, part) for part in parts]
        return found


def _whole(one: dict[str, Any], driver: str) -> Gpu:
    minor = one["index"] if one.get("minor") is None else one["minor"]
    major, lesser = one.get("capability") or (0, 0)
    return Gpu(
        vendor="nvidia",
        number=one["index"],
        name=one["name"],
        memory=one["memory"],
        uuid=one.get("uuid") or "",
        pci=pci_address(one.get("pci") or ""),
        compute_capability=float(f"{major}.{lesser}"),
        driver=driver,
        nodes=(f"/dev/nvidia{minor}",),
    )


def _part(whole: Gpu, one: dict[str, Any], part: dict[str, Any]) -> Gpu:
    place, within = part.get("gi"), part.get("ci")
    guard = f"gpu{one.get('minor')}/gi{place}"
    names = (f"{guard}/access", f"{guard}/ci{within}/access")
    minors = _capability_minors()
    own = tuple(f"/dev/nvidia-caps/nvidia-cap{minors[name]}" for name in names if name in minors)
    return Gpu(
        vendor="nvidia",
        number=whole.number,
        name=part.get("name") or f"{whole.name} MIG",
        memory=part.get("memory") or 0,
        uuid=part.get("uuid") or "",
        pci=whole.pci,
        compute_capability=whole.compute_capability,
        driver=whole.driver,
        slice=f"{place}/{within}",
        nodes=(*whole.nodes, *own),
    )


def _capability_minors() -> dict[str, int]:
    """Minor numbers of what guards slices: `gpu0/gi1/access 12` a line."""
    found = {}
    with suppress(OSError):
        for line in _CAPABILITIES.read_text().splitlines():
            name, _, number = line.partition(" ")
            if number.strip().isdecimal():
                found[name] = int(number)
    return found


class Tool:
    """`nvidia-smi`, where the library cannot be asked; knows nothing of slices."""

    name = "nvidia"

    def present(self) -> bool:
        return which("nvidia-smi") is not None

    def find(self, seconds: float) -> Sequence[Gpu]:
        """Lines that make no sense (a GPU that fell off the bus) are left out. Unreadable."""
        path = which("nvidia-smi")
        if path is None:
            raise Unreadable("nvidia-smi is not installed")

        def table(fields: Sequence[str]) -> str:
            words = [path, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
            return ask(words, seconds)

        try:
            text = table(_FIELDS)
        except Unreadable as error:
            if "did not answer" in str(error):
                raise
            # An old driver does not know compute_cap, and refuses the whole query.
            text = table(_FIELDS[:-1])
        return parse(text)


def parse(text: str) -> list[Gpu]:
    """One line a GPU, in the order of the fields; memory in MiB."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        capability = 0.0
        with suppress(ValueError, IndexError):
            capability = float(fields[6])
        with suppress(ValueError, IndexError):
            number = int(fields[0])
            found.append(
                Gpu(
                    vendor="nvidia",
                    number=number,
                    name=fields[1],
                    memory=int(float(fields[2])) * MIB,
                    uuid=fields[3],
                    pci=pci_address(fields[4]),
                    driver=fields[5],
                    compute_capability=capability,
                    nodes=(f"/dev/nvidia{number}",),
                )
            )
    return found
