"""A SkyPilot task file, read into the fields of a native task. Facts: SkyPilot's YAML
specification, 0.14."""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn

from msgspec import structs

from moorage.specs.checks import check_name, check_volume_target
from moorage.specs.dialects.skypilot.resources import ANY, Wanted, read_resources
from moorage.specs.dialects.skypilot.variables import Filler, literal, read_variables
from moorage.specs.fields.buckets import read_file_mounts
from moorage.specs.fields.field import Field, Origin, read_table
from moorage.specs.fields.mounts import Written
from moorage.specs.mounts import Files, HostPath, Repo
from moorage.specs.nodes import Map
from moorage.specs.schemas import NAME, TEXT
from moorage.specs.values import Context, Value

MARKS = ("run", "setup", "num_nodes", "envs", "secrets", "file_mounts", "workdir")
FILLED = ("workdir", "file_mounts", "volumes", "resources", "num_nodes")
WORKDIR = "~/sky_workdir"
_OWN: Origin = "skypilot"


def is_skypilot(root: Map) -> bool:
    """Whether a document without a type was written for SkyPilot."""
    entries = root.entries
    return not entries.keys() & {"type", "commands"} and bool(entries.keys() & set(MARKS))


def read_document(root: Map, context: Context) -> dict[str, Any]:
    """The fields of a native task by name, mounts as `Written`; problems are recorded."""
    plain = literal(root)
    assert isinstance(plain, Map)
    variables: dict[str, str] = {}
    for field in ("envs", "secrets"):
        node = plain.entries.get(field)
        if node is None or Value(node, field, context).is_null:
            continue
        read = context.attempt(read_variables, Value(node, field, context)) or {}
        variables |= read
        if field == "secrets":
            context.inherited |= read.keys()
    filler = Filler(context, dict(context.env))
    entries = {
        key: filler.fill(node, key) if key in FILLED else node
        for key, node in plain.entries.items()
    }
    document = Value(Map(plain.place, entries, plain.keys, plain.size), "", context)
    given = read_table(document, SKYPILOT)
    return _native(given, variables, document)


def _native(given: dict[str, Any], env: dict[str, str], document: Value) -> dict[str, Any]:
    wanted: Wanted = given.pop("resources", Wanted())
    nodes = given.get("num_nodes", 1)
    commands = [given[name] for name in ("setup", "run") if name in given]
    if not commands and not document.context.problems:
        problem = document.problem("there is nothing to run", "add `run: |` with commands")
        document.context.report(problem)
    native: dict[str, Any] = {
        "name": given.get("name"),
        "env": env,
        "commands": commands,
        "shell": "bash",
        "resources": wanted.resources,
        "image": wanted.image,
        "ports": wanted.ports,
        "fleets": wanted.fleets,
        "nodes": nodes,
        "compat": ["skypilot"],
    }
    for field in ("workdir", "file_mounts", "volumes"):
        native[field] = given.get(field, [])
    return {name: value for name, value in native.items() if value is not None}


def _name(value: Value) -> str:
    return value.parse(lambda text: check_name(text.lower().replace("_", "-").replace(".", "-")))


def _script(value: Value) -> str:
    return value.text(later=True)


def _setup(value: Value) -> str:
    # In a shell of its own, as there: its `cd` and `exit` end with it.
    return f"( # setup\n{value.text(later=True).rstrip()}\n)"


def _workdir(value: Value) -> list[Written]:
    if isinstance(value.node, Map):
        given = read_table(value, WORKDIR_FIELDS)
        if "url" not in given:
            value.reject("url is missing", "write url: and, if need be, ref:")
        return [Written(Repo(target=".", url=given["url"], branch=given.get("ref")), value)]
    return [Written(Files(source=value.text(), target="."), value)]


WORKDIR_FIELDS = (
    Field("url", "Repository that the node clones.", lambda v: v.text(), NAME, _OWN),
    Field("ref", "Branch or tag.", lambda v: v.text(), NAME, _OWN),
)


def _in_workdir(value: Value) -> Value:
    """The same mounts with targets as they are here: SkyPilot's working directory is the job's."""
    node = value.node
    if not isinstance(node, Map):
        return value
    names: dict[str, str] = {}
    for key in node.entries:
        if key.rstrip("/") == WORKDIR:
            fix = "write workdir: instead"
            problem = value.problem(f"{WORKDIR} is the working directory", fix, node.keys[key])
            value.context.report(problem)
        names[key] = key.removeprefix(f"{WORKDIR}/")
    entries = {names[key]: item for key, item in node.entries.items()}
    keys = {names[key]: place for key, place in node.keys.items()}
    return structs.replace(value, node=Map(node.place, entries, keys, node.size))


def _volumes(value: Value) -> list[Written]:
    found = []
    for target, item, _ in value.pairs():
        mount = item.context.attempt(partial(_volume, target), item)
        if mount is not None:
            found.append(Written(mount, item))
    return found


def _volume(target: str, value: Value) -> HostPath:
    if not isinstance(value.node, Map) or "host_path" not in value.node.entries:
        fix = "write {host_path: /path/on/node}, or use file_mounts with a bucket"
        value.reject("this version has no volumes of clouds", fix)
    given = read_table(value, VOLUME)
    return HostPath(
        source=given.get("host_path", "/"),
        target=value.check(check_volume_target, target),
        read_only=given.get("mode") == "ro",
    )


VOLUME = (
    Field("host_path", "Directory of the node.", lambda v: v.text(), NAME, _OWN),
    Field("mode", "`ro`, `rw`.", lambda v: v.choice(("ro", "rw")), TEXT, _OWN),
)


def _refused(what: str, fix: str) -> Any:
    def read(value: Value) -> NoReturn:
        value.reject(f"this version does not {what} yet", fix)

    return read


def _without_effect(value: Value) -> None:
    value.warn("has no effect here", "remove it")


def _file_mounts(value: Value) -> list[Written]:
    return read_file_mounts(_in_workdir(value))


SKYPILOT = (
    Field("name", "Name of the run.", _name, NAME, _OWN),
    Field("resources", "What must be free on a node.", read_resources, ANY, _OWN),
    Field("num_nodes", "Ranks of the job.", lambda v: int(v.number(1, 10_000)), TEXT, _OWN),
    Field("envs", "Variables.", lambda v: None, ANY, _OWN),
    Field("secrets", "Variables that are never shown.", lambda v: None, ANY, _OWN),
    Field("workdir", "Directory that becomes the working directory.", _workdir, ANY, _OWN),
    Field("file_mounts", "Files and buckets.", _file_mounts, ANY, _OWN),
    Field("volumes", "Directories of the node.", _volumes, ANY, _OWN),
    Field("setup", "Commands before `run`.", _setup, TEXT, _OWN),
    Field("run", "The commands.", _script, TEXT, _OWN),
    Field(
        "service",
        "Refused.",
        _refused("run services", "remove it: `run` alone is a task"),
        ANY,
        _OWN,
        "refused",
    ),
    Field("pool", "Refused.", _refused("have pools", "name a fleet"), ANY, _OWN, "refused"),
    Field(
        "managed_secrets",
        "Refused.",
        _refused("have managed secrets", "use secrets: with -e NAME"),
        ANY,
        _OWN,
        "refused",
    ),
    *(
        Field(name, "Without effect.", _without_effect, ANY, _OWN, "accepted")
        for name in ("config", "inputs", "outputs", "event_callback", "api_server_access")
    ),
)
