"""Pieces of JSON Schema that several fields share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

TEXT: Schema = {"type": ["string", "number", "boolean"]}
"""A text; YAML readers make numbers and booleans of some."""
FLAG: Schema = {"anyOf": [{"type": "boolean"}, {"enum": ["yes", "no", "on", "off"]}]}
NAME: Schema = {"type": "string", "minLength": 1}
REFERENCE: Schema = {"type": "string", "pattern": r"\$\{\{"}
"""A text that refers to a variable."""
NUMBER: Schema = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "minLength": 1}]}
DURATION: Schema = {"type": ["string", "integer", "number"], "examples": ["90s", "1h30m", "2d"]}
LIMIT: Schema = {
    "anyOf": [{"type": ["string", "integer", "number"]}, {"const": False}],
    "examples": ["90s", "1h30m", "off"],
}
_BOUND: Schema = {"type": ["string", "number", "null"]}
RANGE: Schema = {
    "anyOf": [
        {"type": ["string", "number"]},
        {
            "type": "object",
            "properties": {"min": _BOUND, "max": _BOUND},
            "minProperties": 1,
            "additionalProperties": False,
        },
    ],
    "examples": ["2..8", "8..", 4],
}


def words(*allowed: str) -> Schema:
    """One of a few words, or a reference that gives one."""
    return {"anyOf": [{"enum": list(allowed)}, REFERENCE]}


def one_or_many(item: Schema) -> Schema:
    """One, or a list of them."""
    return {"anyOf": [item, {"type": "array", "items": item}]}


def mapping(properties: Mapping[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    """A mapping of known keys; null counts as not written."""
    nullable = {name: {"anyOf": [schema, {"type": "null"}]} for name, schema in properties.items()}
    result: dict[str, Any] = {
        "type": "object",
        "properties": nullable,
        "additionalProperties": False,
    }
    if required:
        result["required"] = list(required)
    return result
