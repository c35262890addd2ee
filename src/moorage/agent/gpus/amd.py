"""AMD's GPUs, from `amd-smi`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moorage.agent.gpus.base import MIB, Gpu, Unreadable, pci_address
from moorage.agent.gpus.tool import ask_json, which

_UNITS = {"KB": 1024, "MB": MIB, "GB": 1024 * MIB}


class Amd:
    """`amd-smi static --json`: a list, from ROCm 7 on inside `gpu_data`."""

    name = "amd"

    def present(self) -> bool:
        return which("amd-smi") is not None

    def find(self, seconds: float) -> Sequence[Gpu]:
        """Unreadable."""
        found = ask_json([which("amd-smi") or "amd-smi", "static", "--json"], seconds)
        rows = found.get("gpu_data", []) if isinstance(found, dict) else found
        try:
            return [_gpu(row) for row in rows if "asic" in row]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Unreadable(f"amd-smi: {type(error).__name__} in what it printed") from None


def _gpu(row: dict[str, Any]) -> Gpu:
    asic, driver = row["asic"], row.get("driver") or {}
    name = asic.get("market_name")
    return Gpu(
        vendor="amd",
        number=int(row["gpu"]),
        name=name if name and name != "N/A" else "AMD GPU",
        memory=_bytes(row["vram"]["size"]),
        pci=pci_address(row["bus"]["bdf"]),
        driver=driver.get("version") or driver.get("driver_version") or "",
    )


def _bytes(size: Any) -> int:
    """`{"value": 196592, "unit": "MB"}`, or `196592 MB`, or a number of MB."""
    if isinstance(size, dict):
        return int(float(size["value"]) * _UNITS[size.get("unit", "MB")])
    number, _, unit = str(size).partition(" ")
    return int(float(number) * _UNITS[unit or "MB"])
