"""JSON Schema (draft 2020-12) of what users write, made from the field tables."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from moorage.errors import NotFound
from moorage.specs.fields.field import Field, Table
from moorage.specs.fields.fleet import FLEET
from moorage.specs.fields.task import TASK

_TABLES: Mapping[str, tuple[Table, tuple[str, ...]]] = MappingProxyType(
    {
        "task": (TASK, ("type",)),
        "fleet": (FLEET, ("type", "name", "ssh_config")),
    }
)
"""By kind: its fields, and which of them must be there."""
KINDS = tuple(_TABLES)
_RUNS_SOMETHING = [{"required": [field]} for field in ("commands", "image", "groups")]


def schema(kind: str) -> dict[str, Any]:
    """The schema of a document kind; NotFound for a kind that there is not."""
    if kind not in KINDS:
        raise NotFound(f"there is no schema for '{kind}'; known: {', '.join(KINDS)}")
    table, required = _TABLES[kind]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"moorage {kind}",
        "type": "object",
        "required": list(required),
        **({"anyOf": _RUNS_SOMETHING} if kind == "task" else {}),
        "additionalProperties": False,
        "properties": {row.name: _property(row, row.name in required) for row in table},
    }


def _property(row: Field, required: bool) -> dict[str, Any]:
    description = row.about
    if row.form and row.form != "-":
        description += f" Form: {row.form}."
    if row.default:
        description += f" Default: {row.default}."
    if row.instead:
        description += f" Instead: {row.instead}."
    shape: Mapping[str, Any] = row.schema
    if not required:
        shape = {"anyOf": [row.schema, {"type": "null"}]}
    written = {"description": description, **shape}
    return written | ({"deprecated": True} if row.status == "refused" else {})
