"""The field `ports` of a task."""

from __future__ import annotations

from moorage.specs.fields.field import Field
from moorage.specs.nodes import List
from moorage.specs.ports import Port, parse_port
from moorage.specs.schemas import one_or_many
from moorage.specs.values import Value


def _port(value: Value) -> Port:
    return value.parse(parse_port)


def _ports(value: Value) -> list[Port]:
    if not isinstance(value.node, List):
        return [_port(value)]
    found = [item.context.attempt(_port, item) for item in value.items()]
    return [port for port in found if port is not None]


PORTS = Field(
    "ports",
    "Ports of the job that are yours while the run is attached: `80:8080` makes the job's 8080 "
    "your 80, `*` is any that is free.",
    _ports,
    one_or_many({"type": ["integer", "string"]}),
    form="`8080`, `80:8080`, `*:8080`, or a list",
)
