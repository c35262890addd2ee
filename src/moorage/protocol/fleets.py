"""Bodies of the HTTP API about fleets and their hosts (`/v1/fleets`)."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from moorage.specs.fleet import Fleet

HostStateName = Literal[
    "connecting",
    "checking",
    "installing",
    "starting",
    "ready",
    "unreachable",
    "failed",
    "leaving",
]
TROUBLED = frozenset({"unreachable", "failed"})
"""States in which somebody may have to do something; they are tried again all the same."""
FleetStateName = Literal["active", "deleting"]


class FleetRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A fleet as it should be."""

    spec: Fleet


class HostChange(Struct, frozen=True, omit_defaults=True):
    """What applying a fleet does to one host."""

    change: Literal["add", "change", "keep", "remove"]
    node: str
    host: str
    jobs: int = 0
    """That run there now; of a host to be removed, those that it waits for."""


class FleetPlan(Struct, frozen=True, omit_defaults=True):
    """`problems` would make applying it fail."""

    name: str
    is_new: bool
    changes: list[HostChange]
    problems: list[str] = []


class HostView(Struct, frozen=True, omit_defaults=True):
    """One host. `facts`: what the last check found, as the backend tells it; among them `cannot`,
    a list of `{what, why, fix}`."""

    node: str
    """Name of its node."""
    num: int
    host: str
    """Name or address, with the port where one is written."""
    state: HostStateName
    changed_at: float
    message: str = ""
    fix: str = ""
    stuck: bool = False
    """It leaves, and cannot be reached for that."""
    up: bool = False
    draining: bool = False
    jobs: int = 0
    facts: dict[str, Any] = {}


class FleetView(Struct, frozen=True, omit_defaults=True):
    """A fleet and its hosts, those that leave included."""

    name: str
    state: FleetStateName
    created_at: float
    updated_at: float
    spec: Fleet
    hosts: list[HostView]


class FleetPage(Struct, frozen=True):
    fleets: list[FleetView]


class RebootCheck(Struct, frozen=True, omit_defaults=True):
    """Whether a machine can be rebooted without harm to a job, and what stands against it."""

    node: str
    safe: bool
    reasons: list[str] = []
