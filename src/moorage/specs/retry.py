"""When a failed job is tried again."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

RetryEvent = Literal["no-capacity", "interruption", "error"]


class Retry(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`on_events`: what is retried. `duration`: seconds since the job's first failure in which a
    next attempt may still begin (dstack's default: one hour)."""

    on_events: tuple[RetryEvent, ...] = ("no-capacity", "interruption", "error")
    duration: float = 3600.0
