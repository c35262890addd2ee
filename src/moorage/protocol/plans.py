"""Bodies of the HTTP API: what a submit would do."""

from __future__ import annotations

from msgspec import Struct

from moorage.ids import Digest
from moorage.protocol.api import RunRequests
from moorage.protocol.stores import DataPlan


class PlanRequest(Struct, frozen=True, forbid_unknown_fields=True):
    runs: RunRequests


class PlanNode(Struct, frozen=True, omit_defaults=True):
    """What one node makes of a run."""

    node: str
    fits: bool
    """Its total resources suffice and it has no problem."""
    free_now: bool
    problems: list[str] = []
    notes: list[str] = []
    closed: str = ""
    """Why it takes no new jobs now; empty where it does."""


class RunPlan(Struct, frozen=True, omit_defaults=True):
    """`problems` would make a submit fail; `warnings` would not."""

    name: str | None
    nodes: list[PlanNode]
    problems: list[str] = []
    warnings: list[str] = []
    missing_blobs: list[Digest] = []
    """Trees and packs named by the spec that the server lacks."""
    waits_for: str = ""
    """Why it would not start at once; empty when it would."""
    data: list[DataPlan] = []
    """Where the data of its buckets is."""
    not_asked: list[str] = []
    """Nodes that said nothing about it, and why: they are not connected, or did not answer."""


class PlanReply(Struct, frozen=True):
    runs: list[RunPlan]
