"""On which nodes a task may run: `fleets` and `instances`."""

from __future__ import annotations

import re
from typing import Any

from moorage.specs.fields.field import Field, Table, require_table
from moorage.specs.instances import Instance
from moorage.specs.nodes import Text
from moorage.specs.schemas import FLAG, NAME, mapping, one_or_many
from moorage.specs.values import Value

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,254}")


def _plain(value: Value) -> str:
    text = value.text()
    if not _NAME.fullmatch(text):
        value.reject(f"'{value.shown}' is not a name")
    return text


def _number(value: Value) -> int:
    return int(value.number(0, 10**6))


FLEET_REFERENCE: Table = (
    Field("project", "Accepted: a server has one project.", _plain, NAME, status="accepted"),
    Field("name", "Name of the fleet.", _plain, NAME, default="required"),
)
INSTANCE: Table = (
    Field("name", "Name of the node.", _plain, NAME),
    Field("hostname", "Host name or address, as the fleet's file has it.", _plain, NAME),
    Field("fleet", "Fleet of the node, with `instance`.", _plain, NAME),
    Field("instance", "Number of the node in its fleet.", _number,
          {"type": "integer", "minimum": 0}),
)  # fmt: skip
_FORMS = "write a name, or name, hostname, or fleet and instance"


def _fleet(value: Value) -> str:
    if not isinstance(value.node, Text):
        given = require_table(value, FLEET_REFERENCE)
        if "name" not in given:
            value.reject("name is missing", "write the fleet's name")
        return str(given["name"])
    project, slash, name = value.text().rpartition("/")
    text = name if slash and project else value.text()
    if not _NAME.fullmatch(text):
        value.reject(f"'{value.shown}' is not the name of a fleet")
    return text


def read_fleets(value: Value) -> list[str]:
    """Names of fleets, each once."""
    return list(dict.fromkeys(_fleet(item) for item in value.one_or_many()))


def _instance(value: Value) -> Instance:
    if isinstance(value.node, Text):
        return Instance(name=_plain(value))
    given: dict[str, Any] = require_table(value, INSTANCE)
    if sorted(given) == ["fleet", "instance"]:
        return Instance(name=f"{given['fleet']}-{given['instance']}")
    if sorted(given) not in (["name"], ["hostname"]):
        value.reject("this does not name one node", _FORMS)
    return Instance(**given)


def read_instances(value: Value) -> list[Instance]:
    """Nodes, each once."""
    return list(dict.fromkeys(_instance(item) for item in value.one_or_many()))


_FLEET_SCHEMA = mapping({row.name: row.schema for row in FLEET_REFERENCE}, ("name",))
_INSTANCE_SCHEMA = mapping({row.name: row.schema for row in INSTANCE})

FLEETS_FIELD = Field(
    "fleets",
    "Run on nodes of these fleets only; `local` is the server's own machine.",
    read_fleets,
    one_or_many({"anyOf": [NAME, _FLEET_SCHEMA]}),
    "dstack profile",
    form="list of names",
    default="any",
)
EXCLUSIVE = Field(
    "exclusive",
    "Each node of the job is its alone: it starts where nothing runs, and nothing joins it.",
    lambda v: v.flag(),
    FLAG,
    "moorage",
    form="`true`, `false`",
    default="`false`",
)
INSTANCES_FIELD = Field(
    "instances",
    "Run on these nodes only.",
    read_instances,
    one_or_many({"anyOf": [NAME, _INSTANCE_SCHEMA]}),
    "dstack profile",
    form="list of names, `{hostname}`, `{fleet, instance}`",
    default="any",
)
