"""`type: fleet`: every field that may stand in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, get_args

from msgspec import structs

from moorage.specs.checks import check_name
from moorage.specs.fields.field import Field, Table, refused, require_table
from moorage.specs.fields.run import ENV
from moorage.specs.fields.ssh import BLOCKS_FIELD, HOST, JUMP, SSH, read_ssh
from moorage.specs.fleet import LOCAL, EngineName, Health
from moorage.specs.nodes import Map
from moorage.specs.schemas import DURATION, FLAG, NAME, mapping, one_or_many, words
from moorage.specs.values import Value
from moorage.units import BadValue, parse_duration

ENGINES: tuple[str, ...] = get_args(EngineName)
SHORTEST_INTERVAL = 5.0


def check_fleet_name(text: str) -> str:
    """A fleet's name: as a run's, and not that of the server's own machine."""
    try:
        check_name(text)
    except BadValue as error:
        raise BadValue(text, "a fleet name", error.fix) from None
    if text == LOCAL:
        raise BadValue(text, "a free name", "it is the server's own machine; choose another")
    return text


def _engines(value: Value) -> tuple[EngineName, ...]:
    found = [item.choice(ENGINES) for item in value.one_or_many()]
    if not found:
        value.reject("at least one engine is needed", f"name some of {', '.join(ENGINES)}")
    return cast("tuple[EngineName, ...]", tuple(dict.fromkeys(found)))


def _duration(value: Value) -> float:
    seconds = value.parse(parse_duration)
    if not seconds:
        value.reject("the duration must be above zero")
    return seconds


HEALTH = (
    Field("command", "Shell command; exit code 0 is healthy, 75 a warning, others keep jobs away.",
          lambda v: v.text(), NAME, "moorage", form="text", default="required"),
    Field("interval", "Time between two checks.", _duration, DURATION, "moorage",
          form="duration", default="`5m`"),
    Field("timeout", "After this time the check has failed.", _duration, DURATION, "moorage",
          form="duration", default="`1m`"),
)  # fmt: skip


def _health(value: Value) -> Health:
    if not isinstance(value.node, Map):
        return Health(value.text())
    given: dict[str, Any] = require_table(value, HEALTH)
    if "command" not in given:
        value.reject("command is missing", "write health: {command: ...}")
    if given.get("interval", SHORTEST_INTERVAL) < SHORTEST_INTERVAL:
        value.reject("the interval must be 5s or more")
    return Health(**given)


def _cloud(names: Sequence[str]) -> tuple[Field, ...]:
    fix = "remove it, and name your machines under ssh_config.hosts"
    return tuple(refused(name, "get machines from a cloud", fix, empty=True) for name in names)


def _kept(row: Field) -> Field:
    """A field that is read, kept and shown, and that nothing acts on yet."""
    about = f"{row.about} Kept with the fleet; without effect in this version."
    return structs.replace(row, about=about, status="accepted")


FLEET: Table = (
    Field("type", "Kind of the document.", lambda v: v.choice(("fleet",)), {"const": "fleet"},
          form="`fleet`", default="required"),
    _kept(ENV),
    Field("name", "Name of the fleet; its nodes are `NAME-0`, `NAME-1`, ...",
          lambda v: v.parse(check_fleet_name), NAME, form="as a run's", default="required"),
    Field("placement", "The ranks of a job never leave a fleet, whichever is written.",
          lambda v: v.choice(("any", "cluster")), words("any", "cluster"), status="accepted",
          form="`any`, `cluster`", default="`any`"),
    BLOCKS_FIELD,
    Field("ssh_config", "The machines, and how they are reached.", read_ssh,
          mapping({row.name: row.schema for row in SSH}, ("hosts",)),
          form="mapping", default="required"),
    Field("runtime", "What jobs may run as: with an image (`container`), without (`process`).",
          lambda v: v.choice(("any", "process", "container")),
          words("any", "process", "container"), "moorage",
          form="`process`, `container`, `any`", default="`any`"),
    Field("engines", "What runs containers: the first that works on a node and can run the image.",
          _engines,
          one_or_many(words(*ENGINES)), "moorage",
          form=", ".join(f"`{name}`" for name in ENGINES),
          default="`[moorage, podman, docker]`"),
    Field("docker", "Whether jobs may have a Docker daemon of their own (`docker: true` in tasks);"
          " they are root on the node then, as all of its jobs without an image.",
          lambda v: v.flag(), FLAG, "moorage", form="`true`, `false`", default="`false`"),
    _kept(Field("health", "A check of your own on every node.", _health,
          {"anyOf": [NAME, mapping({row.name: row.schema for row in HEALTH}, ("command",))]},
          "moorage", form="`{command, interval, timeout}`, or the command")),
    *_cloud(("nodes", "reservation", "resources", "backends", "regions", "availability_zones",
             "instance_types", "spot_policy", "retry", "max_price", "idle_duration",
             "backend_options")),
    refused("tags", "keep tags of fleets", "remove them", empty=True),
)  # fmt: skip

NESTED: dict[str, Table] = {
    "ssh_config": SSH,
    "ssh_config.hosts[]": HOST,
    "ssh_config.proxy_jump": JUMP,
    "health": HEALTH,
}
"""Tables of the mappings inside a fleet, for the reference page."""
