"""Decisions on their way to the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from moorage.errors import MoorageError
from moorage.ids import RunId


class Batch(NamedTuple):
    """One decision on its way to the disk."""

    written: Future[None]
    told: asyncio.Future[None]
    after: list[Callable[[], None]]
    told_of: set[RunId | None]
    """Runs that its events are of; None for an event of no run."""


def call_all(calls: Sequence[Callable[[], None]]) -> None:
    """In their order."""
    for call in calls:
        call()


def refuse(told: asyncio.Future[None], error: MoorageError) -> None:
    """Nobody can know whether it happened."""
    if not told.done():
        told.set_exception(error)


def retrieve(told: asyncio.Future[None]) -> None:
    """Nobody waits for most decisions; an error among them was logged by `_fail`."""
    if not told.cancelled():
        told.exception()
