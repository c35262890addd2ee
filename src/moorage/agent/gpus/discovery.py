"""Which GPUs this node has: every vendor asked at once, none waited for beyond its deadline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from moorage.agent.gpus.amd import Amd
from moorage.agent.gpus.base import Gpu, Unreadable, Vendor
from moorage.agent.gpus.devices import Devices
from moorage.agent.gpus.intel import Intel
from moorage.agent.gpus.nvidia import Library, Tool
from moorage.agent.gpus.tenstorrent import Tenstorrent
from moorage.agent.keeper.job import boot_id

PATIENCE = 20.0
"""Seconds for one question: NVIDIA's driver takes several when nothing keeps it awake."""


def vendors() -> list[list[Vendor]]:
    """Ways to learn of GPUs, by vendor; within one, the next is a fallback."""
    return [[Library(), Tool()], [Amd()], [Intel()], [Tenstorrent()]]


def discover(home: Path, seconds: float = PATIENCE) -> Devices:
    """All of them, under numbers that last until the next boot (`home` remembers them). Blocks
    for little more than `seconds` a tool at worst."""
    wanted = [ways for ways in vendors() if any(way.present() for way in ways)]
    if not wanted:
        return Devices()
    with ThreadPoolExecutor(len(wanted)) as pool:
        answers = list(pool.map(lambda ways: ask(ways, seconds), wanted))
    gpus = [gpu for found, _ in answers for gpu in found]
    notes = [note for _, said in answers for note in said]
    return Devices(_numbered(gpus, home / "gpus.json"), tuple(notes))


def ask(ways: Sequence[Vendor], seconds: float) -> tuple[list[Gpu], list[str]]:
    """What the first way that works finds, and why those before it did not."""
    notes: list[str] = []
    for way in ways:
        if not way.present():
            continue
        try:
            return list(way.find(seconds)), notes
        except Unreadable as error:
            notes.append(f"GPUs ({way.name}): {error}")
    return [], notes


def _numbered(gpus: Sequence[Gpu], place: Path) -> dict[int, Gpu]:
    """Jobs hold GPUs by number: one that vanishes must not pass its number on to its neighbour
    while they run. After a boot none does."""
    known: dict[str, int] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        before = json.loads(place.read_text())
        if before["boot_id"] == boot_id():
            known = dict(before["numbers"])
    free = (number for number in range(len(known) + len(gpus)) if number not in known.values())
    fresh = [gpu.identity for gpu in gpus if gpu.identity not in known]
    numbers = known | dict(zip(dict.fromkeys(fresh), list(free), strict=False))
    if fresh:
        with suppress(OSError):  # a full disk is no reason to have no GPUs
            place.write_text(json.dumps({"boot_id": boot_id(), "numbers": numbers}))
    return {numbers[gpu.identity]: gpu for gpu in gpus}
