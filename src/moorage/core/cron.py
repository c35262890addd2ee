"""When a schedule fires next. UTC, as in dstack."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cronsim import CronSim


def next_firing(cron: Sequence[str], after: float) -> float:
    """The earliest time later than `after` (Unix seconds) that any expression names. CronSimError
    for an expression that is none, or names a day that never comes (30 February)."""
    start = datetime.fromtimestamp(after, UTC)
    return min(next(CronSim(expression, start)).timestamp() for expression in cron)
