"""Runs that start by the clock."""

from __future__ import annotations

from msgspec import Struct


class Schedule(Struct, frozen=True, forbid_unknown_fields=True):
    """Each expression is five cron fields, read in UTC, as in dstack."""

    cron: list[str]
