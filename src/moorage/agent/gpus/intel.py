"""Intel's GPUs, from `xpu-smi`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moorage.agent.gpus.base import Gpu, Unreadable, pci_address
from moorage.agent.gpus.tool import ask_json, which


class Intel:
    """`xpu-smi discovery -j` lists them, `-d N` tells the memory of one."""

    name = "intel"

    def present(self) -> bool:
        return which("xpu-smi") is not None

    def find(self, seconds: float) -> Sequence[Gpu]:
        """Unreadable."""
        words = [which("xpu-smi") or "xpu-smi", "discovery"]
        said = ask_json([*words, "-j"], seconds)
        try:
            rows = [row for row in said["device_list"] if _whole(row)]
            return [
                _gpu(row | ask_json([*words, "-d", str(row["device_id"]), "-j"], seconds))
                for row in rows
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Unreadable(f"xpu-smi: {type(error).__name__} in what it printed") from None


def _whole(row: dict[str, Any]) -> bool:
    """Virtual functions are parts of a GPU that is listed too."""
    return row.get("device_type") == "GPU" and row.get("device_function_type") != "virtual"


def _gpu(row: dict[str, Any]) -> Gpu:
    return Gpu(
        vendor="intel",
        number=int(row["device_id"]),
        name=row["device_name"],
        memory=int(row["memory_physical_size_byte"]),
        uuid=row.get("uuid", ""),
        pci=pci_address(row["pci_bdf_address"]),
        driver=row.get("driver_version", ""),
    )
