"""How well a node is: what its agent tells, and what it is asked to look at."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

HealthState = Literal["healthy", "warning", "failure"]
"""A node with a failure takes no new jobs; a warning is only shown."""


class GpuHealth(Struct, frozen=True, omit_defaults=True):
    """One GPU that is not healthy."""

    index: int
    state: HealthState
    reason: str = ""


class Health(Struct, frozen=True, omit_defaults=True, tag="health"):
    """The node's present health: that of its driver and of its fleet's own check; a GPU that is
    not healthy makes it a warning. Said when it changes, and after each `CheckHealth`."""

    state: HealthState = "healthy"
    reason: str = ""
    gpus: list[GpuHealth] = []


class CheckHealth(Struct, frozen=True, omit_defaults=True, tag="check-health"):
    """Run this shell command every `interval` seconds, for `timeout` at most; empty: none. Sent
    after each Hello. What is the same already goes on as it is."""

    command: str = ""
    interval: float = 300.0
    timeout: float = 60.0
