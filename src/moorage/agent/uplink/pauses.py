"""How long an agent waits before it dials again."""

from __future__ import annotations

import random

_PAUSES = (0.0, 0.05, 15.0)  # first retry, base and bound of the others, in seconds
_BOUND_AMONG_SEVERAL = 3.0
"""Seconds: one of several servers takes over within a few; a single one is restarted by hand."""


def pause(failures: int, servers: int = 1) -> float:
    """Seconds before the next try: none until each server has failed once; later little from one
    server to the next, and longer and longer after the last. Never the same for two agents that
    lost the same server."""
    first, base, bound = _PAUSES
    rounds, rest = divmod(failures, servers)
    if rounds + bool(rest) <= 1:
        return first
    if servers > 1:
        bound = _BOUND_AMONG_SEVERAL
    longest = base if rest else min(bound, base * 2.0 ** min(rounds - 2, 16))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)
