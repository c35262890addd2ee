"""Runs that start by the clock."""

from __future__ import annotations

from msgspec import Struct


class Schedule(Struct, frozen=True):
    """Each expression is five cron fields, read in UTC, as in dstack."""

    cron: list[str]
