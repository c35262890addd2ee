"""What runs and under what name: the plain fields of a run."""

from __future__ import annotations

from moorage import interpolate
from moorage.specs.checks import (
    NAME_PATTERN,
    TAG_PATTERN,
    VARIABLE_PATTERN,
    check_name,
    check_python,
    check_shell,
    check_tag,
    check_tag_value,
    check_variable,
    check_working_dir,
)
from moorage.specs.fields.field import Field
from moorage.specs.nodes import Map, Place, Text
from moorage.specs.schemas import NAME, REFERENCE, TEXT, one_or_many, words
from moorage.specs.values import Rejected, Value
from moorage.units import BadValue

DIALECTS = ("dstack", "skypilot")


def read_env(value: Value) -> dict[str, str]:
    """A mapping, or a list of `NAME=value` and bare names, which are taken from the caller.

    Later entries may refer to earlier ones; the values are templates.
    """
    result: dict[str, str] = {}
    if isinstance(value.node, Map):
        for name, item, place in value.pairs():
            _take(result, name, None if item.is_null else item, item, place)
        return result
    for item in value.items():
        text = item.context.attempt(lambda item: item.text(later=True), item)
        if text is None:
            continue
        name, equals, _ = text.partition("=")
        if name in result:
            item.context.report(item.problem(f"{name} is given twice", "remove one of them"))
        elif equals:
            _take(result, name, item, item, item.node.place, text[len(name) + 1 :])
        else:
            _take(result, name, None, item, item.node.place)
    return result


def _take(
    result: dict[str, str],
    name: str,
    item: Value | None,
    where: Value,
    place: Place,
    given: str | None = None,
) -> None:
    """Read one variable into `result` and into the context; a bare one has no `item`."""
    context = where.context
    result[name] = ""
    try:
        check_variable(name)
        if name in context.overrides:
            text = interpolate.escape(context.overrides[name])
        elif item is None:
            text = _inherited(name, where)
        else:
            text = item.text(later=True, empty=True) if given is None else given
    except BadValue as error:
        context.report(where.problem(f"'{name[:60]}' is not {error.expected}", error.fix, place))
        return
    except Rejected as rejected:
        context.broken.add(name)
        context.report(*rejected.problems)
        return
    result[name] = text
    if interpolate.references(text):
        context.deferred.add(name)
    else:
        context.env[name] = interpolate.fill(text, {}, last=True)


def _inherited(name: str, where: Value) -> str:
    value = where.context.environ.get(name)
    if value is None:
        fix = f"export {name}, pass -e {name}=..., or give it a value here"
        where.reject(f"{name} is not set in your environment", fix)
    where.context.inherited.add(name)
    return interpolate.escape(value)


def read_commands(value: Value) -> list[str]:
    """One command, or a list of them; templates."""
    found = []
    for item in value.one_or_many():
        text = item.context.attempt(lambda item: item.text(later=True, args=True), item)
        if text is not None:
            found.append(text)
    return found


def read_python(value: Value) -> str:
    """`3.11`. Some YAML writers make 3.1 of 3.10, and nobody means Python 3.1."""
    node = value.node
    if isinstance(node, Text) and node.plain and node.text == "3.1":
        value.warn("3.1 is read as Python 3.10", "write '3.10', in quotes")
        return "3.10"
    return value.parse(check_python)


def read_tags(value: Value) -> dict[str, str]:
    """A mapping of names to short texts."""
    result = {}
    for name, item, place in value.pairs():
        try:
            check_tag(name)
            result[name] = (
                "" if item.is_null else item.check(check_tag_value, item.text(empty=True))
            )
        except BadValue as error:
            problem = item.problem(f"'{name[:60]}' is not {error.expected}", error.fix, place)
            item.context.report(problem)
        except Rejected as rejected:
            item.context.report(*rejected.problems)
    return result


def read_compat(value: Value) -> list[str]:
    """Dialects, each once."""
    found = [item.choice(DIALECTS) for item in value.one_or_many()]
    return list(dict.fromkeys(found))


ENV = Field(
    "env",
    "Environment variables; a bare name takes the value from the environment of the caller.",
    read_env,
    {
        "anyOf": [
            {"type": "array", "items": {"type": "string", "pattern": VARIABLE_PATTERN[:-1]}},
            {
                "type": "object",
                "propertyNames": {"pattern": VARIABLE_PATTERN},
                "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
            },
        ]
    },
    form="mapping, or list of `NAME=value` and `NAME`",
)
NAME_FIELD = Field(
    "name",
    "Name of the run.",
    lambda v: v.parse(check_name),
    {
        "anyOf": [
            {"type": "string", "pattern": NAME_PATTERN},
            REFERENCE,
        ]
    },
    form=f"`{NAME_PATTERN}`",
    default="made up",
)
COMMANDS = Field(
    "commands",
    "Shell commands, run in order until one fails.",
    read_commands,
    one_or_many(TEXT),
    form="list, or one text",
    default="required",
)
SHELL = Field(
    "shell",
    "Shell that runs the commands.",
    lambda v: v.parse(check_shell),
    NAME,
    form="`sh`, `bash`, absolute path",
    default="bash where there is one, else sh",
)
PYTHON = Field(
    "python",
    "What `python` and `python3` mean in the job.",
    read_python,
    {"type": ["string", "number"]},
    form="`3.9` or later",
    default="the node's",
)
WORKING_DIR = Field(
    "working_dir",
    "Directory in which commands start.",
    lambda v: v.parse(check_working_dir, later=True),
    NAME,
    form="absolute, `~/...`, or below the working directory",
    default="`/workflow`",
)
PRIORITY = Field(
    "priority",
    "Higher starts first.",
    lambda v: int(v.number(0, 100)),
    {
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": 100},
            REFERENCE,
        ]
    },
    form="0 to 100",
    default="`0`",
)
TAGS = Field(
    "tags",
    "Labels of the run.",
    read_tags,
    {
        "type": "object",
        "propertyNames": {"pattern": TAG_PATTERN},
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    },
    "dstack profile",
    form="mapping of short texts",
)
COMPAT = Field(
    "compat",
    "Dialects whose environment variables are set beside `MOORAGE_*`.",
    read_compat,
    {"anyOf": [words(*DIALECTS), {"type": "array", "items": words(*DIALECTS)}]},
    "moorage",
    form="list of `dstack`, `skypilot`",
    default="`[dstack]` for `*.dstack.yml` and where `DSTACK_*` is used",
)
