"""When a schedule fires next. UTC, as in dstack."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cronsim import CronSim


def next_firing(cron: Sequence[str], after: float) -> float | None:
    """The earliest time later than `after` (Unix seconds) that any expression names; None where
    none names one (30 February). CronSimError for an expression that is none."""
    start = datetime.fromtimestamp(after, UTC)
    times = (next(CronSim(expression, start), None) for expression in cron)
    return min((time.timestamp() for time in times if time is not None), default=None)
