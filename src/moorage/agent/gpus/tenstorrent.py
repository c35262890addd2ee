"""Tenstorrent's accelerators, from `tt-smi`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moorage.agent.gpus.base import MIB, Gpu, Unreadable, pci_address
from moorage.agent.gpus.tool import ask_json, which

_GIB = 1024 * MIB
_MEMORY = {"e75": 8, "e150": 8, "n150": 12, "n300": 12, "p100": 28, "p150": 32, "p300": 32}
"""GiB of one chip by board: the tool does not say."""


class Tenstorrent:
    """`tt-smi -s`: a snapshot, one entry a chip."""

    name = "tenstorrent"

    def present(self) -> bool:
        return which("tt-smi") is not None

    def find(self, seconds: float) -> Sequence[Gpu]:
        """Unreadable."""
        said = ask_json([which("tt-smi") or "tt-smi", "-s"], seconds)
        try:
            driver = (said.get("host_info") or {}).get("Driver", "")
            boards = [row["board_info"] for row in said["device_info"]]
            # The second chip of an n300 has no bus of its own: it comes with the first.
            reached = [board for board in boards if ":" in str(board.get("bus_id"))]
            return [_gpu(number, board, boards, driver) for number, board in enumerate(reached)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Unreadable(f"tt-smi: {type(error).__name__} in what it printed") from None


def _gpu(number: int, board: dict[str, Any], boards: list[dict[str, Any]], driver: str) -> Gpu:
    kind = str(board["board_type"]).split()[0].lower()
    serial = str(board.get("board_id", ""))
    chips = sum(1 for other in boards if serial and other.get("board_id") == serial) or 1
    alike = [b for b in boards if b.get("board_id") == serial and ":" in str(b.get("bus_id"))]
    each = _MEMORY.get(kind.rstrip("abcds"), 0) * _GIB
    return Gpu(
        vendor="tenstorrent",
        number=number,
        name=str(board["board_type"]),
        memory=each * chips // max(1, len(alike)),
        pci=pci_address(str(board["bus_id"])),
        driver=driver,
        nodes=(f"/dev/tenstorrent/{number}",),
    )
