"""Tasks on several nodes: how many, which of them run what, in which order they start and end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from moorage.specs.checks import MOST_NODES, check_group_name
from moorage.specs.fields.field import Field, Origin, Table, require_table
from moorage.specs.fields.resources import RESOURCES, read_resources
from moorage.specs.fields.run import COMMANDS
from moorage.specs.gang import NodeGroup, StartupOrder, StopCriteria
from moorage.specs.schemas import NAME, REFERENCE, mapping, words
from moorage.specs.values import Value

PROFILE: Origin = "dstack profile"
_ORDERS: tuple[str, ...] = get_args(StartupOrder)
_CRITERIA: tuple[str, ...] = get_args(StopCriteria)
_COUNT = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST_NODES}, REFERENCE]}


def _nodes(value: Value) -> int:
    return int(value.number(1, MOST_NODES))


GROUP: Table = (
    Field(
        "name",
        "Name of the group, `MOORAGE_GROUP` in its jobs.",
        lambda v: v.parse(check_group_name),
        NAME,
        default="`groupN`",
    ),
    Field("nodes", "How many nodes run this.", _nodes, _COUNT, default="`1`"),
    Field(
        "resources",
        "What must be free on each of its nodes.",
        read_resources,
        mapping({row.name: row.schema for row in RESOURCES}),
        form="mapping",
    ),
    COMMANDS,
)


def read_groups(value: Value) -> list[NodeGroup]:
    """Each with a name of its own."""
    found: list[NodeGroup] = []
    for number, item in enumerate(value.items()):
        given = item.context.attempt(lambda item: require_table(item, GROUP), item)
        if given is None:
            continue
        group = NodeGroup(**{"name": f"group{number}", **given})
        if any(group.name == other.name for other in found):
            item.context.report(item.problem(f"two groups have the name {group.name}"))
        found.append(group)
    if (total := sum(group.nodes for group in found)) > MOST_NODES:
        value.reject(f"there are {total} nodes in all, more than {MOST_NODES}")
    return found


def clashes(given: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Field, problem and remedy of what cannot stand together."""
    groups: list[NodeGroup] = given.get("groups", [])
    if not groups:
        return
    fix = "write it in each group"
    if "nodes" in given:
        yield "nodes", "a task with groups has the nodes of these", fix
    if "commands" in given:
        yield "commands", "a task with groups has the commands of these", fix
    if "resources" in given:
        yield "resources", "a task with groups has the resources of these", fix
    if "entrypoint" in given:
        yield "entrypoint", "groups have commands and no entrypoint", "remove it"
    if "image" not in given and (bare := [group.name for group in groups if not group.commands]):
        yield "groups", f"group {bare[0]} has nothing to run", "add a command to it"


NODES_FIELD = Field(
    "nodes",
    "On how many nodes the job runs at once: all start or none.",
    _nodes,
    _COUNT,
    form=f"1 to {MOST_NODES}",
    default="`1`",
)
GROUPS_FIELD = Field(
    "groups",
    "Nodes that run different things, instead of `nodes`, `commands` and `resources`.",
    read_groups,
    {"type": "array", "items": mapping({row.name: row.schema for row in GROUP})},
    form="list of `{name, nodes, resources, commands}`",
)
STARTUP_ORDER = Field(
    "startup_order",
    "Which nodes start first; the others wait until the commands of these run.",
    lambda v: v.choice(_ORDERS),
    words(*_ORDERS),
    PROFILE,
    form=", ".join(f"`{order}`" for order in _ORDERS),
    default="`any`",
)
STOP_CRITERIA = Field(
    "stop_criteria",
    "Whether the job has succeeded when all nodes have, or when the first one has.",
    lambda v: v.choice(_CRITERIA),
    words(*_CRITERIA),
    PROFILE,
    form=", ".join(f"`{criterion}`" for criterion in _CRITERIA),
    default="`all-done`",
)
GANG: Table = (NODES_FIELD, GROUPS_FIELD, STARTUP_ORDER, STOP_CRITERIA)
