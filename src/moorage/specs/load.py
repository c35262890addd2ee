"""From the text of a file to a spec: all that is wrong with it is said at once, each with file,
line, column and field.

Pure: the environment and the arguments are given, paths are not looked at. A file holds one run;
a second YAML document in it is an error.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from moorage import interpolate
from moorage.errors import InvalidInput, Problem
from moorage.specs import container
from moorage.specs.checks import check_name, check_variable, clashes
from moorage.specs.dialects.skypilot.document import is_skypilot, read_document
from moorage.specs.fields import gang
from moorage.specs.fields.field import read_table
from moorage.specs.fields.mounts import Written
from moorage.specs.fields.task import TASK
from moorage.specs.mounts import Bucket, Files, HostPath, Repo
from moorage.specs.nodes import Map, Text, compose, places_of
from moorage.specs.places import ELSEWHERE, Places
from moorage.specs.task import Task
from moorage.specs.values import Context, Value, suggestion
from moorage.units import BadValue

DSTACK_NAMES = (".dstack.yml", ".dstack.yaml")
MOUNT_FIELDS = ("workdir", "files", "repos", "volumes", "file_mounts")
MOUNT_ORDER = (Files, Repo, HostPath, Bucket)


class Loaded(Struct, frozen=True):
    """A file that is right. `source` is its text; `inherited` names the variables whose values
    came from the caller's environment and are best not shown, `places` has where each of the
    spec's mounts was written: field, line and column; `fields` the place of every field."""

    spec: Task
    dialect: str
    warnings: list[Problem]
    source: str
    inherited: frozenset[str] = frozenset()
    places: tuple[tuple[str, int, int], ...] = ()
    fields: Places = msgspec.field(default_factory=dict)


def load(
    text: str,
    *,
    file: str,
    environ: Mapping[str, str],
    args: Sequence[str] | None = (),
    overrides: Sequence[str] = (),
    name: str | None = None,
    keep_env: bool = False,
) -> Loaded:
    """The run that a file describes. `environ` is the caller's environment, `args` what follows
    `--` on the command line, `overrides` the values of `-e`, `name` that of `-n`. For a spec that
    is shown and not run: `args=None` leaves `${{ run.args }}` in it, `keep_env` `${{ env.* }}`
    in commands and variables.

    InvalidInput carries every problem found.
    """
    root, problems = compose(text, file)
    context = Context(file, environ, problems=problems, keep_env=keep_env)
    context.args = None if args is None else shlex.join(args)
    context.overrides = _overrides(overrides, context)
    context.env.update(context.overrides)
    sky = is_skypilot(root)
    given = read_document(root, context) if sky else _read(Value(root, "", context), root)
    if name is not None:
        given["name"] = _option_name(name, context)
    _require_use(args, context)
    written = _mounts(given, context)
    if context.problems:
        raise InvalidInput(*sorted(context.problems, key=lambda p: (p.line, p.column)))
    dialect = "skypilot" if sky else _dialect(root, context, given)
    given["mounts"] = [item.mount for item in written]
    return Loaded(
        _task(given, context.overrides),
        dialect,
        context.warnings,
        text,
        frozenset(context.inherited),
        tuple((item.value.field, *item.value.node.place) for item in written),
        {**places_of(root), **({} if name is None else {"name": ELSEWHERE})},
    )


def _task(given: dict[str, Any], overrides: Mapping[str, str]) -> Task:
    """The spec of what was read; fields that only had to be accepted leave no trace in it."""
    env = {**given.get("env", {})}
    for key, value in overrides.items():
        env.setdefault(key, interpolate.escape(value))
    kept = {key: value for key, value in given.items() if key in Task.__struct_fields__}
    return Task(**kept | {"env": env})


def _read(document: Value, root: Map) -> dict[str, Any]:
    """The fields of the document by name, problems recorded."""
    kind = root.entries.get("type")
    context = document.context
    if kind is None:
        if not any(suggestion(key, ("type",)) for key in root.entries):
            context.report(document.problem("the field 'type' is missing", "write `type: task`"))
    elif isinstance(kind, Text) and not kind.is_null and kind.text != "task":
        # The fields of another kind of document would all be unknown: say the one thing that is.
        context.attempt(TASK[0].read, Value(kind, "type", context))
        return {}
    given = read_table(document, TASK)
    given.pop("type", None)
    if given.get("groups"):
        pass  # each has its own
    elif "commands" not in root.entries and "image" not in root.entries:
        fix = "add `commands:` with at least one command"
        context.report(document.problem("the field 'commands' is missing", fix))
    elif given.get("commands") == [] and "image" not in given and not context.problems:
        value = Value(root.entries["commands"], "commands", context)
        context.report(value.problem("there is nothing to run", "add a command"))
    for field, message, fix in (*container.clashes(given), *gang.clashes(given)):
        context.report(Value(root.entries[field], field, context).problem(message, fix))
    return given


def _mounts(given: dict[str, Any], context: Context) -> list[Written]:
    """The mounts of all fields in the order of `Task.mounts`, clashes recorded."""
    written: list[Written] = [item for field in MOUNT_FIELDS for item in given.pop(field, [])]
    written.sort(key=lambda item: MOUNT_ORDER.index(type(item.mount)))
    for later, earlier, message in clashes([item.mount for item in written]):
        place = written[earlier].value.node.place
        fix = f"the other is on line {place.line}; give each a target of its own"
        context.report(written[later].value.problem(message, fix))
    return written


def _overrides(pairs: Sequence[str], context: Context) -> dict[str, str]:
    """What `-e` gives: `NAME=value`, or a bare name from the caller's environment."""
    result = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        try:
            check_variable(name)
        except BadValue as error:
            context.report(Problem(f"'{name[:60]}' is not {error.expected}", error.fix, "-e"))
            continue
        if not equals and name not in context.environ:
            fix = f"export {name}, or write -e {name}=value"
            context.report(Problem(f"{name} is not set in your environment", fix, "-e"))
            continue
        if not equals:
            context.inherited.add(name)
        result[name] = value if equals else context.environ[name]
    return result


def _require_use(args: Sequence[str] | None, context: Context) -> None:
    """Arguments that the file does not mention would be lost without a word."""
    if args and interpolate.ARGS not in context.used:
        fix = "write ${{ run.args }} where they belong in commands"
        context.report(Problem("the arguments after -- are used nowhere", fix, "--", context.file))


def _option_name(name: str, context: Context) -> str:
    try:
        return check_name(name)
    except BadValue as error:
        context.report(Problem(str(error), field="-n"))
        return name


def _dialect(root: Map, context: Context, given: dict[str, Any]) -> str:
    """What the file was written in. One for dstack gets what such a file relies on."""
    compat = given.get("compat")
    if not _is_dstack(context.file, root, context, compat):
        return "native"
    if compat is None:
        given["compat"] = ["dstack"]
    return "dstack"


def _is_dstack(file: str, root: Map, context: Context, compat: list[str] | None) -> bool:
    """Whether the file was written for dstack: by its name, or by what it expects to find."""
    if file.endswith(DSTACK_NAMES) or "dstack" in context.used:
        return True
    if compat is not None:
        return False
    return any(
        _mentions(root.entries[field]) for field in ("commands", "env") if field in root.entries
    )


def _mentions(node: Any) -> bool:
    if isinstance(node, Text):
        return "DSTACK_" in node.text
    if isinstance(node, Map):
        return any("DSTACK_" in key or _mentions(item) for key, item in node.entries.items())
    return any(_mentions(item) for item in node.items)
