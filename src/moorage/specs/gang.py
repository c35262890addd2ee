"""Tasks on several nodes: which ranks there are, and what each is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from moorage.specs.resources import Resources

if TYPE_CHECKING:
    from moorage.specs.task import Task

StartupOrder = Literal["any", "master-first", "workers-first"]
StopCriteria = Literal["all-done", "master-done"]


class NodeGroup(Struct, frozen=True, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    """Ranks that are alike. They are numbered through all groups, in the order of these."""

    name: str
    nodes: int = 1
    resources: Resources = Resources()
    commands: list[str] = []


def ranks(task: Task) -> int:
    """How many there are."""
    return sum(group.nodes for group in task.groups) if task.groups else task.nodes


def group_of(task: Task, rank: int) -> NodeGroup | None:
    """The group that a rank belongs to; None where there are no groups."""
    for group in task.groups:
        if rank < group.nodes:
            return group
        rank -= group.nodes
    return None


def resources_of(task: Task, rank: int) -> Resources:
    """What a rank asks of its node."""
    group = group_of(task, rank)
    return task.resources if group is None else group.resources


def commands_of(task: Task, rank: int) -> list[str]:
    """What a rank runs."""
    group = group_of(task, rank)
    return task.commands if group is None else group.commands
