"""Say how far blocking work is, to whoever looks now.

`tell` may be called in any thread that was started where `current` was set, by `asyncio.to_thread`
for one."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

current: ContextVar[Callable[[str], None] | None] = ContextVar("telling", default=None)


def tell(text: str) -> None:
    """A few words such as `fetching 3.1 of 9.4 GB`; without a listener they go nowhere."""
    listener = current.get()
    if listener is not None:
        listener(text)
