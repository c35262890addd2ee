"""YAML text as a tree that remembers where everything was written.

Scalars stay text: `python: 3.10` is `3.10` and not the number 3.1, `off` is `off`. What a text
means is decided by the field that reads it. Built from parser events with a stack of its own, so
that no input can exhaust the C stack, and anchors are counted as if they were written out, so that
a few lines cannot stand for a billion values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import yaml
from msgspec import Struct

from moorage.errors import InvalidInput, Problem

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_NODES = 100_000
_DEEP = 3
"""How far fields are inside each other of which the place is told."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ["str", "int", "float", "bool", "null", "map", "seq"]
)


class Place(NamedTuple):
    """Counted from 1."""

    line: int
    column: int


class Text(Struct, frozen=True):
    """A scalar. `plain`: written without quotes, so that `off`, `null` and numbers may mean
    something. `written`: its source, quotes and all, to find places inside it."""

    place: Place
    text: str
    plain: bool
    written: str
    size: int = 1

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


class List(Struct, frozen=True):
    place: Place
    items: list[Node]
    size: int


class Map(Struct, frozen=True):
    """Each key once; `keys` has where each was written."""

    place: Place
    entries: dict[str, Node]
    keys: dict[str, Place]
    size: int


Node = Text | List | Map


class _Frame(Struct):
    """A list or mapping that is being read."""

    place: Place
    is_map: bool
    anchor: str | None
    children: list[Node] = msgspec.field(default_factory=list)


def compose(text: str, file: str) -> tuple[Map, list[Problem]]:
    """The document's mapping, and its duplicate keys and the like. InvalidInput where the text is
    not YAML, or not one mapping."""
    try:
        return _compose(text, file)
    except InvalidInput:
        if script := _script(text, file):
            raise InvalidInput(script) from None
        raise


def _script(text: str, file: str) -> Problem | None:
    """What to say of a script, which is no YAML or means nothing as such."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#SBATCH"):
            fix = (
                "write its commands under `commands:`, --time as `max_duration`, and --mem, "
                "--cpus-per-task and --gres under `resources:`"
            )
            return Problem("this version does not read Slurm scripts yet", fix, "", file, number)
    if text.startswith("#!"):
        fix = "write a file that names it under `files:` and `commands:`"
        return Problem("this is a script, and not a task file", fix, "", file, 1)
    return None


def _compose(text: str, file: str) -> tuple[Map, list[Problem]]:
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        place = _place_of(text, error.start)
        raise InvalidInput(
            Problem("this character is not valid Unicode", "", "", file, *place)
        ) from None
    if len(encoded) > MAX_BYTES:
        raise InvalidInput(
            Problem(
                "the file is larger than 1 MB",
                "put data into files, and their names here",
                "",
                file,
            )
        )
    composer = _Composer(encoded, file)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.take(event)
    except yaml.YAMLError as error:
        raise InvalidInput(_syntax_problem(error, text, file)) from None
    root = composer.root
    if root is None or (isinstance(root, Text) and root.is_null):
        raise InvalidInput(
            Problem("the file is empty", "write `type: task` and `commands:`", "", file)
        )
    if not isinstance(root, Map):
        fix = "write `key: value` lines, starting with `type: task`"
        raise InvalidInput(Problem("the file is not a mapping", fix, "", file, *root.place))
    return root, composer.problems


class _Composer:
    """Turns events into nodes."""

    def __init__(self, source: bytes, file: str) -> None:
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self._source = source
        self._file = file
        self._stack: list[_Frame] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0
        self._size = 0

    def take(self, event: Any) -> None:
        """Add what one parser event brings."""
        mark: Any = event.start_mark
        place = Place(mark.line + 1, mark.column + 1)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(place, "a second document begins here", "write one run per file")
        elif isinstance(event, yaml.CollectionStartEvent):
            self._check_tag(event.tag, place)
            if len(self._stack) == MAX_DEPTH:
                self._stop(place, f"nested deeper than {MAX_DEPTH} levels")
            is_map = isinstance(event, yaml.MappingStartEvent)
            self._stack.append(_Frame(place, is_map, event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            frame = self._stack.pop()
            node = self._map(frame) if frame.is_map else self._list(frame)
            self._add(node, frame.anchor)
        elif isinstance(event, yaml.ScalarEvent):
            self._check_tag(event.tag, place)
            end_mark: Any = event.end_mark
            start, end = mark.index, end_mark.index  # libyaml counts bytes
            written = self._source[start:end].decode(errors="replace")
            plain = not event.style and event.tag != "tag:yaml.org,2002:str"
            self._add(Text(place, event.value, plain, written), event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            anchor = str(event.anchor)
            if anchor not in self._anchors:
                fix = f"put `&{anchor}` before it, and not around it"
                self._stop(place, f"`*{anchor}` refers to nothing", fix)
            self._add(self._anchors[anchor], None)

    def _add(self, node: Node, anchor: str | None) -> None:
        self._size += node.size
        if self._size > MAX_NODES:
            self._stop(node.place, f"more than {MAX_NODES} values, repeated anchors included")
        if anchor:
            self._anchors[anchor] = node
        if self._stack:
            self._stack[-1].children.append(node)
        else:
            self.root = node

    def _list(self, frame: _Frame) -> List:
        size = 1 + sum(child.size for child in frame.children)
        return List(frame.place, frame.children, size)

    def _map(self, frame: _Frame) -> Map:
        result = Map(frame.place, {}, {}, 1 + sum(child.size for child in frame.children))
        merged: list[Map] = []
        for key, value in zip(frame.children[::2], frame.children[1::2], strict=True):
            if not isinstance(key, Text):
                self._report(key.place, "a key must be a plain word")
            elif key.plain and key.text == "<<":
                merged += self._merges(value)
            elif key.text in result.entries:
                first = result.keys[key.text].line
                message = f"`{key.text[:60]}` is written twice; the first is on line {first}"
                self._report(key.place, message, "remove one of them")
            else:
                result.entries[key.text] = value
                result.keys[key.text] = key.place
        for source in merged:
            for name, value in source.entries.items():
                result.entries.setdefault(name, value)
                result.keys.setdefault(name, source.keys[name])
        return result

    def _merges(self, value: Node) -> Iterator[Map]:
        for source in value.items if isinstance(value, List) else [value]:
            if isinstance(source, Map):
                yield source
            else:
                self._report(source.place, "`<<` merges mappings only")

    def _check_tag(self, tag: str | None, place: Place) -> None:
        if tag is not None and tag != "!" and tag not in _TAGS:
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            self._report(place, f"the YAML tag `{shown}` is not allowed here", "remove it")

    def _report(self, place: Place, message: str, fix: str = "") -> None:
        self.problems.append(Problem(message, fix, "", self._file, *place))

    def _stop(self, place: Place, message: str, fix: str = "") -> None:
        problem = Problem(message, fix, "", self._file, *place)
        raise InvalidInput(*self.problems, problem)


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        # Only the reader's errors have no mark: characters that YAML forbids.
        position = getattr(error, "position", 0)
        return Problem(
            "a control character is in the file", "remove it", "", file, *_place_of(text, position)
        )
    place = Place(mark.line + 1, mark.column + 1)
    lines = text.split("\n")
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: mark.column + 1]:
        return Problem("a tab is used as indentation", "indent with spaces", "", file, *place)
    reason = getattr(error, "problem", None) or "not valid YAML"
    context = getattr(error, "context", None)
    begun = getattr(error, "context_mark", None)
    if context and begun is not None and begun.line != mark.line:
        context += f" that begins on line {begun.line + 1}"
    message = f"not valid YAML: {reason}" + (f" ({context})" if context else "")
    fix = ""
    if "mapping values are not allowed" in message:
        fix = "put quotes around a text that contains `: `"
    elif "flow" in message and "${{" in line:
        fix = "put quotes around a text that contains `${{`"
    elif "quoted scalar" in message:
        fix = "close the quote"
    return Problem(message, fix, "", file, *place)


def _place_of(text: str, position: int) -> Place:
    before = text[:position]
    return Place(before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)


def places_of(root: Map) -> dict[str, Place]:
    """Of all fields that are not deep inside others."""
    return dict(_places(root, "", _DEEP))


def _places(node: Node, field: str, depth: int) -> Iterator[tuple[str, Place]]:
    if field:
        yield field, node.place
    if depth == 0:
        return
    if isinstance(node, Map):
        for key, child in node.entries.items():
            yield from _places(child, f"{field}.{key}" if field else key, depth - 1)
    elif isinstance(node, List):
        for number, child in enumerate(node.items):
            yield from _places(child, f"{field}[{number}]", depth - 1)
