"""How the mounted buckets of an attempt are, as its agent sees them while it runs and flushes."""

from __future__ import annotations

from msgspec import Struct


class MountHealth(Struct, frozen=True, omit_defaults=True):
    """One of them. Each later one replaces the earlier."""

    target: str
    message: str = ""
    """For users: how often it was restarted and why, and what it waits for."""
    restarts: int = 0
    stalled: float | None = None
    """Since when (Unix seconds) its store, or its process, does not answer; None: it does."""
    unstored: int = 0
    """How many `fsync` with `durable: fsync` have failed."""
