"""From the text of a fleet file to its spec; every problem at once, as `load.py` for tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct, structs

from moorage.errors import InvalidInput, Problem
from moorage.specs.checks import check_variable
from moorage.specs.fields.field import read_table
from moorage.specs.fields.fleet import FLEET
from moorage.specs.fleet import Fleet, Host
from moorage.specs.nodes import Map, Text, compose, places_of
from moorage.specs.places import Places
from moorage.specs.values import Context, Value
from moorage.units import BadValue


class LoadedFleet(Struct, frozen=True):
    """A fleet file that is right; `source` is its text, `fields` the place of every field."""

    spec: Fleet
    warnings: list[Problem]
    source: str
    file: str = ""
    fields: Places = msgspec.field(default_factory=dict)


def is_fleet(text: str) -> bool:
    """Whether the file says that it is a fleet; False also for what is no YAML: whoever reads it
    as something else will say so."""
    if "fleet" not in text:
        return False
    try:
        root, _ = compose(text, "")
    except InvalidInput:
        return False
    kind = root.entries.get("type")
    return isinstance(kind, Text) and kind.text == "fleet"


def load_fleet(text: str, *, file: str, environ: Mapping[str, str]) -> LoadedFleet:
    """The fleet that a file describes. InvalidInput carries every problem found."""
    root, problems = compose(text, file)
    context = Context(file, environ, problems=problems)
    document = Value(root, "", context)
    given = read_table(document, FLEET)
    _require(document, root)
    if context.problems:
        raise InvalidInput(*sorted(context.problems, key=lambda p: (p.line, p.column)))
    return LoadedFleet(_spec(given, root), context.warnings, text, file, places_of(root))


def _require(document: Value, root: Map) -> None:
    for name, fix in (
        ("name", "add name: with lowercase letters, digits and dashes"),
        ("ssh_config", "add ssh_config: with hosts:"),
    ):
        node = root.entries.get(name)
        if node is None or (isinstance(node, Text) and node.is_null):
            document.context.report(document.problem(f"the field '{name}' is missing", fix))


def _spec(given: dict[str, Any], root: Map) -> Fleet:
    blocks = given.pop("blocks", None)
    hosts = given.pop("ssh_config")
    if blocks is not None:
        own = _with_blocks(root)
        hosts = tuple(
            host if number in own else structs.replace(host, blocks=blocks)
            for number, host in enumerate(hosts)
        )
    kept = {key: value for key, value in given.items() if key in Fleet.__struct_fields__}
    return Fleet(**kept, hosts=hosts)


def _with_blocks(root: Map) -> set[int]:
    """Positions of hosts that say themselves into how many blocks they are split."""
    ssh = root.entries["ssh_config"]
    hosts = ssh.entries["hosts"] if isinstance(ssh, Map) else None
    items = getattr(hosts, "items", [])
    return {
        n for n, item in enumerate(items) if isinstance(item, Map) and "blocks" in item.entries
    }


def document(fleet: Fleet) -> dict[str, Any]:
    """The native file that says the same, every host with all that holds for it; without
    variables, whose values may be secret."""
    whole: dict[str, Any] = {"type": "fleet", "name": fleet.name}
    defaults = Fleet(name="", hosts=())
    for field in ("placement", "runtime", "engines", "docker"):
        if (value := getattr(fleet, field)) != getattr(defaults, field):
            whole[field] = list(value) if isinstance(value, tuple) else value
    if fleet.health is not None:
        whole["health"] = structs.asdict(fleet.health)
    # What holds for all hosts can only be written for all.
    ssh = {
        field: getattr(fleet.hosts[0], field)
        for field in ("network", "host_key")
        if fleet.hosts and getattr(fleet.hosts[0], field)
    }
    return whole | {"ssh_config": ssh | {"hosts": [_written(host) for host in fleet.hosts]}}


def _written(host: Host) -> dict[str, Any]:
    plain = ("hostname", "port", "user", "identity_file", "internal_ip", "blocks")
    written = {field: value for field in plain if (value := getattr(host, field))}
    if host.jumps:
        jumps = [structs.asdict(jump) for jump in host.jumps]
        written["proxy_jump"] = [{k: v for k, v in jump.items() if v} for jump in jumps]
    return written


def check_fleet(fleet: Fleet) -> list[Problem]:
    """What is wrong with a spec that no loader has seen: what its file would be told."""
    text = json.dumps(document(fleet)).replace("${{", "$${{")
    problems = []
    try:
        load_fleet(text, file="", environ={})
    except InvalidInput as error:
        problems = [p._replace(file="", line=0, column=0) for p in error.problems]
    for name in fleet.env:
        try:
            check_variable(name)
        except BadValue as error:
            problems.append(Problem(str(error), field="env"))
    return problems
