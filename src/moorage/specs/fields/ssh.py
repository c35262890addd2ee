"""`ssh_config:` of a fleet: how its hosts are reached."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import Any, NoReturn

from msgspec import structs

from moorage.specs.fields.field import Field, read_table, require_table
from moorage.specs.fleet import Blocks, Host, Jump
from moorage.specs.nodes import Text
from moorage.specs.schemas import NAME, TEXT, mapping, one_or_many
from moorage.specs.values import Value

# Nothing that ssh could take for an option, a user or more than one word.
_HOSTNAME = re.compile(r"[A-Za-z0-9_:\[][A-Za-z0-9_.:%\[\]-]{0,253}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\$-]{0,63}")
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
BLOCKS_SCHEMA: dict[str, Any] = {"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}
MOST_JUMPS = 8


def _hostname(value: Value) -> str:
    text = value.text()
    if "@" in text:
        user, _, rest = text.rpartition("@")
        fix = f"write hostname: {rest}, user: {user}"
        value.reject(f"'{value.shown}' is not a host name", fix)
    if not _HOSTNAME.fullmatch(text):
        value.reject(f"'{value.shown}' is not a host name", "write a name or an IP address")
    return text


def _user(value: Value) -> str:
    text = value.text()
    if not _USER.fullmatch(text):
        value.reject(f"'{value.shown}' is not a user name")
    return text


def _identity(value: Value) -> str:
    text = value.text()
    if "PRIVATE KEY" in text:
        _key(value)
    if any(not c.isprintable() or c in '"%' for c in text):
        value.reject(f"'{value.shown}' is not a path that ssh can be given")
    if not text.startswith(("/", "~/")):
        fix = "begin it with / or ~/: it is a file of the machine and account of the server"
        value.reject(f"'{value.shown}' is not an absolute path", fix)
    return text


def _key(value: Value) -> NoReturn:
    fix = "keep the key in a file of its own and name that in identity_file"
    value.reject("a private key does not belong in a fleet file", fix)


def _internal(value: Value) -> str:
    text = value.text()
    try:
        private = ip_address(text).is_private
    except ValueError:
        value.reject(f"'{value.shown}' is not an IP address")
    if not private:
        value.reject(f"'{value.shown}' is not a private address", "leave it out")
    return text


def _network(value: Value) -> str:
    text = value.text()
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        value.reject(f"'{value.shown}' is not a network", "write it as in 10.0.0.0/24")
    if not found.is_private:
        value.reject(f"'{value.shown}' is not a private network", "leave it out")
    return str(found)


def read_blocks(value: Value) -> Blocks:
    """A whole number, or `auto`."""
    return "auto" if value.text() == "auto" else int(value.number(1, 1024))


def _identity_field() -> tuple[Field, ...]:
    return (
        Field(
            "identity_file",
            "Private key, a file of the machine and account of the server.",
            _identity,
            NAME,
            form="absolute path, `~/...`",
            default="what ssh tries",
        ),
        Field("ssh_key", "Never: a private key in a file that is passed on.", _key,
              {"type": "null"}, status="refused", form="-", instead="name it in identity_file"),
    )  # fmt: skip


_USER_FIELD = Field("user", "Account.", _user, NAME, form="name", default="what ssh says")
_PORT_FIELD = Field(
    "port", "Port.", lambda v: int(v.number(1, 65535)), _PORT, form="1 to 65535", default="`22`"
)
_HOSTNAME_FIELD = Field(
    "hostname", "Name or address, or a `Host` of the server's own ssh configuration.",
    _hostname, NAME, form="text", default="required",
)  # fmt: skip

JUMP = (_HOSTNAME_FIELD, _PORT_FIELD, _USER_FIELD, _identity_field()[0])
_JUMP_SCHEMA = mapping({row.name: row.schema for row in JUMP}, ("hostname",))


def _jump(value: Value) -> Jump:
    given = require_table(value, JUMP)
    if "hostname" not in given:
        value.reject("hostname is missing", "write proxy_jump: {hostname: ...}")
    return Jump(**given)


def _jumps(value: Value) -> tuple[Jump, ...]:
    items = value.one_or_many()
    if len(items) > MOST_JUMPS:
        value.reject(f"more than {MOST_JUMPS} hosts on the way")
    return tuple(_jump(item) for item in items)


_JUMPS_FIELD = Field(
    "proxy_jump", "Host through which the way leads; several in the order of the way.",
    _jumps, one_or_many(_JUMP_SCHEMA), form="`{hostname, port, user, identity_file}`, or a list",
)  # fmt: skip
BLOCKS_FIELD = Field(
    "blocks", "Into how many equal parts a node is split: a job takes the fewest whole ones that "
    "cover its GPUs, CPUs, memory and disk.", read_blocks, BLOCKS_SCHEMA,
    form="number, or `auto`: one for each GPU, else CPU", default="shared by what jobs reserve",
)  # fmt: skip

HOST = (
    _HOSTNAME_FIELD,
    _PORT_FIELD,
    _USER_FIELD,
    *_identity_field(),
    _JUMPS_FIELD,
    Field("internal_ip", "Address that other nodes use.", _internal, NAME,
          form="private IP address", default="one in `network`"),
    BLOCKS_FIELD,
)  # fmt: skip


def _host(value: Value) -> dict[str, Any]:
    if isinstance(value.node, Text):
        return {"hostname": _hostname(value)}
    given = require_table(value, HOST)
    if "hostname" not in given:
        value.reject("hostname is missing", "write - hostname: ...")
    return given


def _hosts(value: Value) -> list[dict[str, Any]]:
    found: dict[str, Value] = {}
    read = []
    for item in value.items():
        given = item.context.attempt(_host, item)
        if given is None:
            continue
        key = f"{given['hostname']}:{given.get('port', '')}"
        if key in found:
            first = found[key].node.place.line
            problem = item.problem(f"{given['hostname']} is written twice; first on line {first}",
                                   "remove one of them")  # fmt: skip
            item.context.report(problem)
        found.setdefault(key, item)
        read.append(given)
    if not value.items():
        value.reject("a fleet needs at least one host", "write - hostname: ...")
    return read


SSH = (
    _USER_FIELD,
    _PORT_FIELD,
    *_identity_field(),
    _JUMPS_FIELD,
    Field("network", "Private network in which the nodes reach each other.", _network, NAME,
          form="CIDR, `10.0.0.0/24`", default="the one of the address that ssh reaches"),
    Field("host_key", "What to do with a host whose key is not known yet.",
          lambda v: v.choice(("strict", "accept-new")), {"enum": ["strict", "accept-new"]},
          "moorage", form="`strict`: refuse; `accept-new`: trust at the first contact",
          default="`strict`"),
    Field("hosts", "The machines.", _hosts,
          {"type": "array", "minItems": 1, "items": {"anyOf": [
              TEXT, mapping({row.name: row.schema for row in HOST}, ("hostname",))]}},
          form="list of names, or of mappings with settings of their own", default="required"),
)  # fmt: skip


def read_ssh(value: Value) -> tuple[Host, ...]:
    """The hosts, each with what holds for all filled in."""
    before = len(value.context.problems)
    shared = read_table(value, SSH)
    hosts = shared.pop("hosts", None)
    if hosts is None and len(value.context.problems) == before:
        value.reject("hosts are missing", "write hosts: with one `- name` a line")
    if "proxy_jump" in shared:
        shared["jumps"] = shared.pop("proxy_jump")
    found = []
    for given in hosts or ():
        own = {("jumps" if key == "proxy_jump" else key): item for key, item in given.items()}
        found.append(structs.replace(Host(hostname=own["hostname"]), **shared | own))
    return tuple(found)
