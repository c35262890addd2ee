"""Reads of the store for others: never on the loop, which a slow database would hold up with all
that it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Reading:
    """A few threads for one purpose: where the database does not answer its readers, no other
    purpose waits for them. The threads end when nobody refers to this any more."""

    def __init__(self, purpose: str, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, purpose)

    async def __call__(self, call: Callable[[], T]) -> T:
        """What the call returns or raises. A call that has not begun when this is cancelled is
        never made."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
