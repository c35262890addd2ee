"""Fleets and their hosts as they are known now; what should become of them is in their specs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from moorage.ids import NodeId
from moorage.specs.fleet import Fleet, Host

HostState = Literal[
    "connecting",
    "checking",
    "installing",
    "starting",
    "ready",
    "unreachable",  # tried again by itself
    "failed",  # tried again too, but somebody has to change something first
    "leaving",  # drained, then its agent is removed
]
FleetState = Literal["active", "deleting"]


@dataclass(slots=True)
class LiveHost:
    """One host. `num` is its own for as long as the file names it."""

    fleet: str
    num: int
    spec: Host
    state: HostState
    changed_at: float
    message: str = ""
    """One line: what is going on, or what is wrong."""
    fix: str = ""
    facts: str = "{}"
    """What the last check found: JSON of the backend."""
    node: NodeId | None = None
    stuck: bool = False
    """It leaves, and cannot be reached for that."""
    force: bool = False
    """It leaves without waiting for jobs, and even where it cannot be reached."""

    @property
    def name(self) -> str:
        """Of its node."""
        return f"{self.fleet}-{self.num}"


@dataclass(slots=True)
class LiveFleet:
    """A fleet and its hosts by number, those that leave included."""

    spec: Fleet
    state: FleetState
    created_at: float
    updated_at: float
    hosts: dict[int, LiveHost] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.spec.name


class Change(NamedTuple):
    """What applying a file does to one host."""

    kind: Literal["add", "change", "keep", "remove"]
    num: int
    spec: Host
    """As the file has it; of one that is removed, as it was."""


def changes(known: LiveFleet | None, spec: Fleet, taken: frozenset[str]) -> Iterator[Change]:
    """What applying `spec` does, by host. Hosts are told apart by their addresses, and new ones
    get the lowest numbers that are free; `taken` are names of nodes that are somebody else's."""
    there = {} if known is None else {host.spec.address: host for host in known.hosts.values()}
    used = {host.num for host in there.values()}
    wanted = {host.address for host in spec.hosts}
    number = 0
    for host in spec.hosts:
        before = there.get(host.address)
        if before is not None:
            same = before.spec == host and before.state != "leaving"
            yield Change("keep" if same else "change", before.num, host)
            continue
        while number in used or f"{spec.name}-{number}" in taken:
            number += 1
        used.add(number)
        yield Change("add", number, host)
    for address, old in there.items():
        if address not in wanted:
            yield Change("remove", old.num, old.spec)
