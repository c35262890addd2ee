"""`$NAME` and `${NAME}` in a SkyPilot file: filled in from its `envs` and `secrets` before
anything else of it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping

from moorage.errors import Problem
from moorage.interpolate import escape
from moorage.specs.checks import check_variable
from moorage.specs.nodes import List, Map, Node, Place, Text
from moorage.specs.values import Context, Rejected, Value, place_inside
from moorage.units import BadValue

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*)|\{([^}]*)\})")


def read_variables(value: Value) -> dict[str, str]:
    """`envs` or `secrets`: a mapping of names to texts, which are templates already. Null asks
    for a value on the command line."""
    result: dict[str, str] = {}
    for name, item, place in value.pairs():
        try:
            check_variable(name)
            result[name] = _value(name, item)
        except BadValue as error:
            problem = item.problem(f"'{name[:60]}' is not {error.expected}", error.fix, place)
            item.context.report(problem)
        except Rejected as rejected:
            item.context.broken.add(name)
            item.context.report(*rejected.problems)
    return result


def _value(name: str, item: Value) -> str:
    context = item.context
    if name in context.overrides:
        context.env[name] = context.overrides[name]
        return escape(context.overrides[name])
    if item.is_null:
        fix = f"pass -e {name}=..., or -e {name} to take it from your environment"
        item.reject(f"the variable {name} has no value", fix)
    text = item.text(later=True, empty=True)
    assert isinstance(item.node, Text)
    context.env[name] = item.node.text
    return text


def literal(node: Node) -> Node:
    """The same with `${{` as plain text: these files know no references of that kind."""
    if isinstance(node, Text):
        return Text(node.place, escape(node.text), node.plain, node.written)
    if isinstance(node, List):
        return List(node.place, [literal(item) for item in node.items], node.size)
    entries = {key: literal(item) for key, item in node.entries.items()}
    return Map(node.place, entries, node.keys, node.size)


class Filler:
    """Fills variables in, in keys and values; what has no value is a problem at its place."""

    def __init__(self, context: Context, known: Mapping[str, str]) -> None:
        self._context = context
        self._known = known

    def fill(self, node: Node, field: str) -> Node:
        """The same node without variables."""
        if isinstance(node, Text):
            text = self._text(node.text, field, node)
            return node if text == node.text else Text(node.place, text, False, node.written)
        if isinstance(node, List):
            items = [self.fill(item, f"{field}[{n}]") for n, item in enumerate(node.items)]
            return List(node.place, items, node.size)
        entries: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        for key, item in node.entries.items():
            place = node.keys[key]
            name = self._text(key, field, Text(place, key, True, key))
            if name in entries:
                self._report(f"two keys become {name}", "give each its own", field, place)
            entries[name], keys[name] = self.fill(item, f"{field}.{key}"), place
        return Map(node.place, entries, keys, node.size)

    def _text(self, text: str, field: str, node: Text) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name in self._known:
                return self._known[name]
            place = place_inside(node, match[0])
            if name is None:
                fix = "only ${NAME} is understood: give the whole value to a variable under envs"
                self._report(f"'{match[0]}' is not a variable", fix, field, place)
            elif name not in self._context.broken:
                known = f"known are {', '.join(sorted(self._known))}; " if self._known else ""
                fix = f"{known}add it under envs, or pass -e {name}=..."
                self._report(f"the variable {name} is not set", fix, field, place)
            return match[0]

        return _VARIABLE.sub(value, text)

    def _report(self, message: str, fix: str, field: str, place: Place) -> None:
        self._context.report(Problem(message, fix, field, self._context.file, *place))
