"""A row of the field tables. The loader, the JSON Schema and the reference page are made from
these rows, so that they cannot disagree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from moorage.specs.fields.otherwords import advice
from moorage.specs.nodes import List, Map, Text
from moorage.specs.values import Rejected, Value, cut

Schema = Mapping[str, Any]
Reader = Callable[[Value], Any]

Origin = Literal["dstack", "dstack profile", "moorage", "skypilot"]
_FEW = 12
"""Names that an error about an unknown one lists; more are no help in one line."""

Status = Literal["honoured", "accepted", "refused"]
"""`honoured`: does what it says. `accepted`: allowed, because here it changes nothing. `refused`:
only its neutral values are allowed."""


class Field(Struct, frozen=True):
    """One key of a mapping."""

    name: str
    about: str
    """For the reference page and for editors: one sentence."""
    read: Reader
    schema: Schema
    origin: Origin = "dstack"
    status: Status = "honoured"
    form: str = ""
    """What may be written, in words."""
    default: str = ""
    instead: str = ""
    """For refused fields: what to do instead."""


Table = Sequence[Field]


def refused(
    name: str,
    what: str,
    instead: str,
    *,
    neutral: Sequence[str] = (),
    empty: bool = False,
    origin: Origin = "dstack",
) -> Field:
    """A field that this version knows and cannot do. `what` completes "this version does not
    ... yet"; `neutral` values, and an empty list or mapping with `empty`, ask for nothing."""

    def read(value: Value) -> None:
        node = value.node
        if isinstance(node, Text) and (value.is_null or value.text() in neutral):
            return
        if empty and isinstance(node, List | Map) and node.size == 1:
            return
        value.reject(f"this version does not {what} yet", instead)

    allowed: list[Schema] = [{"type": "null"}]
    if neutral:
        allowed.append({"enum": [_plain(word) for word in neutral]})
    if empty:
        allowed += [{"type": "array", "maxItems": 0}, {"type": "object", "maxProperties": 0}]
    shown = [f"`{word}`" for word in neutral] + (["empty"] if empty else [])
    form = f"only {' or '.join(shown)}" if shown else "-"
    about = f"This version does not {what} yet."
    schema = {"anyOf": allowed}
    return Field(name, about, read, schema, origin, "refused", form, "", instead)


def _known(table: Table) -> str:
    """What may stand here, where that is not a page of names."""
    if len(table) > _FEW:
        return f"`moorage schema {table[0].schema.get('const', 'task')}` has all fields"
    return f"known here: {', '.join(sorted(row.name for row in table))}"


def read_table(value: Value, table: Table) -> dict[str, Any]:
    """What a mapping's keys mean, by name, in the order of the table; null counts as not written.
    Every problem of every key is reported, and those keys are left out."""
    rows = {row.name: row for row in table}
    present: dict[str, Value] = {}
    for key, item, place in value.pairs():
        if key in rows:
            present[key] = item
        else:
            near, fix = advice(key, list(rows))
            fix = fix or ("" if near else _known(table))
            value.context.report(item.problem(f"there is no field '{cut(key)}'{near}", fix, place))
    result: dict[str, Any] = {}
    for row in table:
        if row.name not in present or present[row.name].is_null:
            continue
        try:
            result[row.name] = row.read(present[row.name])
        except Rejected as rejected:
            value.context.report(*rejected.problems)
    return result


def require_table(value: Value, table: Table) -> dict[str, Any]:
    """As `read_table`, but rejects the mapping as a whole after any problem in it."""
    before = len(value.context.problems)
    result = read_table(value, table)
    if len(value.context.problems) > before:
        raise Rejected
    return result


def _plain(word: str) -> str | int | bool:
    """The value that a YAML or JSON reader gives to a neutral word."""
    if word in ("true", "false"):
        return word == "true"
    return int(word) if word.lstrip("-").isdigit() else word
