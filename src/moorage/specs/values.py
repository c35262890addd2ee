"""Values of a document on their way to a spec: each knows its place, its field and its file, so
that whatever is wrong with it is said with all three.

A reader takes a `Value` and returns what it means, or calls `reject`, which ends the reading of
this value only: the loader records the problem and reads on, to report everything at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn, TypeVar

from msgspec import Struct, structs
from msgspec import field as initial

from moorage import interpolate
from moorage.errors import InvalidInput, Problem
from moorage.interpolate import Reference
from moorage.specs.nodes import List, Map, Node, Place, Text
from moorage.units import BadValue

T = TypeVar("T")

MAX_PROBLEMS = 100
MAX_PROBLEMS_OF_A_TEXT = 10
TRUE = ("true", "yes", "on")
FALSE = ("false", "no", "off")


class Rejected(Exception):
    """Internal to loading: this value is wrong, and here is why."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__(*problems)


class Context(Struct):
    """What reading one document needs and finds."""

    file: str
    environ: Mapping[str, str]
    args: str | None = ""
    """For `${{ run.args }}`, quoted for the shell; None leaves the reference as it is."""
    keep_env: bool = False
    """Leave `${{ env.* }}` as it is in commands and variables: to show, not to run."""
    overrides: Mapping[str, str] = initial(default_factory=dict)
    """Variables given on the command line; they replace those of the document."""
    env: dict[str, str] = initial(default_factory=dict)
    """The run's own variables read so far: `${{ env.* }}` looks here first."""
    deferred: set[str] = initial(default_factory=set)
    """Those of them whose value refers to what is known later."""
    broken: set[str] = initial(default_factory=set)
    """Those of them whose value is wrong, which is said once and not again where it is used."""
    inherited: set[str] = initial(default_factory=set)
    """Those of them that the document takes from the caller by a bare name."""
    problems: list[Problem] = initial(default_factory=list)
    warnings: list[Problem] = initial(default_factory=list)
    used: set[str] = initial(default_factory=set)
    """Namespaces and keys of every reference seen: `dstack`, `run.args`."""

    def attempt(self, read: Callable[[Value], T], value: Value) -> T | None:
        """What `read` makes of the value; None once its problems are recorded."""
        try:
            return read(value)
        except Rejected as rejected:
            self.report(*rejected.problems)
            return None

    def report(self, *problems: Problem) -> None:
        """Record problems; past a hundred the file is given up."""
        self.problems.extend(problems)
        if len(self.problems) >= MAX_PROBLEMS:
            raise InvalidInput(
                *self.problems, Problem("too many problems to go on", file=self.file)
            )


class Value(Struct, frozen=True):
    """One node of the document."""

    node: Node
    field: str
    context: Context

    def problem(self, message: str, fix: str = "", place: Place | None = None) -> Problem:
        line, column = place or self.node.place
        return Problem(message, fix, self.field, self.context.file, line, column)

    def reject(self, message: str, fix: str = "") -> NoReturn:
        raise Rejected(self.problem(message, fix))

    def warn(self, message: str, fix: str = "") -> None:
        self.context.warnings.append(self.problem(message, fix))

    @property
    def is_null(self) -> bool:
        return isinstance(self.node, Text) and self.node.is_null

    @property
    def shown(self) -> str:
        """The value as written, for messages: what `${{ env.* }}` stands for may be secret."""
        if isinstance(self.node, Text):
            return cut(self.node.text.partition("\n")[0])
        return "a list" if isinstance(self.node, List) else "a mapping"

    def items(self) -> list[Value]:
        """The items of a list."""
        if not isinstance(self.node, List):
            self.reject(f"a list is needed, not {self._kind()}", "write one `- item` a line")
        return [
            structs.replace(self, node=node, field=f"{self.field}[{number}]")
            for number, node in enumerate(self.node.items)
        ]

    def one_or_many(self) -> list[Value]:
        """The items of a list; one value counts as a list of one."""
        return self.items() if isinstance(self.node, List) else [self]

    def pairs(self) -> Iterator[tuple[str, Value, Place]]:
        """Key, value and the key's place of a mapping."""
        if not isinstance(self.node, Map):
            self.reject(f"a mapping is needed, not {self._kind()}", "write `key: value` lines")
        for key, node in self.node.entries.items():
            name = f"{self.field}.{cut(key)}" if self.field else cut(key)
            yield key, structs.replace(self, node=node, field=name), self.node.keys[key]

    def text(self, *, later: bool = False, args: bool = False, empty: bool = False) -> str:
        """The text, with what is known now filled in.

        `later`: it may refer to what is known later, and is still a template. `args`:
        `${{ run.args }}` makes sense here. `empty`: an empty text is fine.
        """
        if not isinstance(self.node, Text):
            fix = ""
            if isinstance(self.node, Map) and self.field.startswith("commands["):
                fix = "put quotes around a command that contains `: `, or write it after `- |`"
            self.reject(f"a text is needed, not {self._kind()}", fix)
        if self.is_null:
            self.reject("a value is missing after the key")
        text = self._filled(self.node, later, args)
        if "\0" in text:
            self.reject("the text contains a NUL character")
        if not empty and not text.strip():
            self.reject("the text is empty")
        return text

    def parse(self, parse: Callable[[str], T], *, later: bool = False) -> T:
        """What a grammar makes of the text."""
        return self.check(parse, self.text(later=later))

    def check(self, parse: Callable[[str], T], text: str) -> T:
        """What a grammar makes of the text or of a part of it."""
        try:
            return parse(text)
        except BadValue as error:
            self.reject(f"'{self.shown}' is not {error.expected}", error.fix)

    def settled(self, text: str) -> str:
        """A part of the text that must not wait for what is known later."""
        for reference in interpolate.references(text):
            self.reject(f"{reference.key} is not known yet when this is read", "use env.* here")
        return interpolate.fill(text, {}, last=True)

    def flag(self) -> bool:
        """`true` or `false`, in YAML's spellings."""
        text = self.text().lower()
        if text not in TRUE + FALSE:
            self.reject(f"'{self.shown}' is neither true nor false")
        return text in TRUE

    def choice(self, allowed: tuple[str, ...]) -> str:
        """One of a few words."""
        text = self.text()
        if text not in allowed:
            close = suggestion(text, allowed)
            self.reject(f"'{self.shown}' is not one of {', '.join(allowed)}{close}")
        return text

    def number(self, low: float, high: float | None = None, *, whole: bool = True) -> float:
        """A number within bounds."""
        kind = "a whole number" if whole else "a number"
        bounds = f"{kind} from {low} to {high}" if high is not None else f"{kind}, {low} or more"
        text = self.text()
        try:
            number = int(text) if whole and len(text) < 16 else float(text)
        except ValueError:
            self.reject(f"'{self.shown}' is not {bounds}")
        if not (low <= number and (high is None or number <= high)) or (whole and number % 1):
            self.reject(f"'{self.shown}' is not {bounds}")
        return number

    def _kind(self) -> str:
        return {Text: "a single value", List: "a list", Map: "a mapping"}[type(self.node)]

    def _filled(self, node: Text, later: bool, args: bool) -> str:
        if "{{" not in node.text:
            return node.text
        values: dict[str, str] = {}
        problems: list[Problem] = []
        found: dict[str, int] = {}
        for reference in interpolate.references(node.text):
            nth = found[reference.text] = found.get(reference.text, -1) + 1
            self.context.used |= {reference.namespace, reference.key}
            if reference.namespace == "env" and reference.name in self.context.broken:
                raise Rejected
            try:
                values |= self._known(reference, later, args)
            except BadValue as error:
                place = place_inside(node, reference.text, nth)
                problems.append(self.problem(error.expected, error.fix, place))
                if len(problems) == MAX_PROBLEMS_OF_A_TEXT:
                    break
        if problems:
            raise Rejected(*problems)
        return interpolate.fill(node.text, values, last=not later)

    def _known(self, reference: Reference, later: bool, args: bool) -> dict[str, str]:
        """What a reference stands for now, if anything; BadValue with the reason where it can
        never stand for something here."""
        key = reference.key
        if reference.namespace == "env":
            if reference.name in self.context.deferred:
                fix = f"use ${reference.name} in a command, or write its value here"
                raise BadValue("", f"{key} refers to what is known only later", fix)
            value = self.context.env.get(reference.name, self.context.environ.get(reference.name))
            if value is None:
                fix = f"export {reference.name}, or pass -e {reference.name}=..."
                raise BadValue("", f"the environment variable {reference.name} is not set", fix)
            kept = self.context.keep_env and self.field.startswith(_KEPT)
            return {} if kept else {key: value}
        if key == interpolate.ARGS:
            if not args:
                raise BadValue("", "run.args can be used in commands only")
            return {} if self.context.args is None else {key: self.context.args}
        if key not in interpolate.RUN_NAMES | interpolate.JOB_NAMES:
            raise BadValue("", *_unknown(reference))
        if not later:
            fix = "use env.* or plain text here"
            raise BadValue("", f"{key} is not known yet when this field is read", fix)
        return {}


_KEPT = ("commands", "env", "registry_auth")
"""Fields in which a file that is shown keeps its references to the environment."""


def _unknown(reference: Reference) -> tuple[str, str]:
    """Why a reference names nothing, and what to do."""
    if reference.namespace == "secrets":
        return (
            "secrets.* is not supported by this version yet",
            "pass the secret as an environment variable: a bare name under `env`",
        )
    if not reference.namespace:
        return f"{cut(reference.text)} is not a variable", _FORMS
    if reference.key in ("moorage.scratch", "moorage.workdir"):
        variable = reference.key.replace(".", "_").upper()
        return f"{reference.key} is known only on the node", f"use ${variable} in a command"
    if reference.namespace not in interpolate.NAMESPACES:
        near = suggestion(reference.namespace, interpolate.NAMESPACES)
        return f"there is no namespace '{cut(reference.namespace)}'{near}", _ESCAPE
    known = sorted(interpolate.RUN_NAMES | interpolate.JOB_NAMES | {interpolate.ARGS})
    same = [name for name in known if name.startswith(f"{reference.namespace}.")]
    near = suggestion(reference.key, same)
    return f"there is no variable '{cut(reference.key)}'{near}", f"known: {', '.join(same)}"


_FORMS = "write ${{ env.NAME }}, or $${{ for the text"
_ESCAPE = "write $${{ where the text ${{ is meant"


def cut(text: str) -> str:
    """The text, short enough for a message."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def place_inside(node: Text, part: str, nth: int = 0) -> Place:
    """Where the nth occurrence of a part of a scalar is written; the scalar's own place where it
    was folded or escaped beyond recognition."""
    at = -1
    for _ in range(nth + 1):
        at = node.written.find(part, at + 1)
        if at < 0:
            return node.place
    before = node.written[:at]
    lines = before.count("\n")
    if lines == 0:
        return Place(node.place.line, node.place.column + at)
    return Place(node.place.line + lines, at - before.rfind("\n"))


def suggestion(word: str, known: tuple[str, ...] | list[str]) -> str:
    """`; did you mean 'x'?`, or nothing when nothing is close."""
    import difflib  # only wrong files pay for it

    as_known = {one.lower(): one for one in known}
    close = difflib.get_close_matches(word[:80].lower(), as_known, n=1, cutoff=0.6)
    return f"; did you mean '{as_known[close[0]]}'?" if close else ""
