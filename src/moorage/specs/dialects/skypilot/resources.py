"""`resources:` of a SkyPilot task. Facts: SkyPilot's YAML specification, 0.14."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from msgspec import Struct

from moorage.specs.fields.field import Field, read_table
from moorage.specs.nodes import Map, Text
from moorage.specs.ports import LARGEST, Port
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.schemas import FLAG, NUMBER, TEXT, Schema, one_or_many
from moorage.specs.values import Value
from moorage.units import parse_size

ANY: Schema = {}
MOST_PORTS = 100
_GB = 1024**3
_AT_LEAST = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)(\+?)")
_WITH_MEMORY = re.compile(r"(.+?)-([0-9]+)GB(-[A-Za-z0-9]+)?")
_MACHINES = "jobs run on the nodes of your fleets"


class Wanted(Struct, frozen=True):
    """What `resources` says, as moorage's fields."""

    resources: Resources = Resources()
    image: str | None = None
    ports: list[Port] = []
    fleets: list[str] = []


def _amount(value: Value, what: str) -> tuple[float, str, bool]:
    text = value.text()
    found = _AT_LEAST.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0 or found[2] == "x":
        fix = "write a number, with + after it for at least"
        if found is not None and found[2] == "x":
            fix = "write the memory itself: it cannot be told as a multiple of CPUs here"
        value.reject(f"'{value.shown}' is not {what}", fix)
    return float(found[1]), found[2], bool(found[3])


def _cpus(value: Value) -> Cpu:
    count, unit, more = _amount(value, "a number of CPUs")
    if unit:
        value.reject(f"'{value.shown}' is not a number of CPUs", "write a number, such as 4 or 4+")
    return Cpu(Range(count, None if more else count))


def _memory(value: Value) -> Range:
    count, unit, _ = _amount(value, "an amount of memory")
    # The size of a machine there, not a limit of the job.
    return Range(value.check(parse_size, f"{count:g}{unit or 'GB'}"))


def _disk(value: Value) -> Range:
    count, unit, _ = _amount(value, "a size")
    return Range(value.check(parse_size, f"{count:g}{unit or 'GB'}"))


def _accelerators(value: Value) -> Gpu | None:
    """`A100:8`, `{A100: 8}`, or several of which any will do."""
    if isinstance(value.node, Map):
        named = [(name, _count(item)) for name, item, _ in value.pairs()]
    else:
        named = [_one(item) for item in value.one_or_many()]
    if not named:
        return None
    counts = {count for _, count in named}
    if len(counts) > 1:
        value.reject(
            "choices with different counts cannot be one request here",
            "write one count, or choose one of them",
        )
    parts = [_model(name) for name, _ in named]
    memory = {size for _, size in parts}
    count = counts.pop()
    if count == 0:
        return None
    names = list(dict.fromkeys(name for name, _ in parts))
    [size] = memory if len(memory) == 1 else [None]
    return Gpu(Range(count, count), None, names, None if size is None else Range(size))


def _one(value: Value) -> tuple[str, int]:
    name, colon, count = value.text().partition(":")
    return name.strip(), _whole(value, count) if colon else 1


def _count(value: Value) -> int:
    return _whole(value, value.text())


def _whole(value: Value, text: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,4}(\.0+)?\s*", text):
        value.reject(f"'{value.shown}' is not a whole number of GPUs", "write for example H100:8")
    return int(float(text))


def _model(name: str) -> tuple[str, float | None]:
    """`A100-80GB` is a model and its memory."""
    found = _WITH_MEMORY.fullmatch(name)
    # Vendors round up: 80 GB cards report a little less than 80 GiB.
    return (found[1], int(found[2]) * _GB * 0.9) if found else (name, None)


def _ports(value: Value) -> list[Port]:
    result: list[Port] = []
    for item in value.one_or_many():
        text = item.text()
        found = re.fullmatch(r"\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5})\s*)?", text)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 0 < first <= last <= LARGEST:
            item.reject(f"'{item.shown}' is not a port or a range of ports", "write 8080 or 80-90")
        if last - first >= MOST_PORTS:
            item.reject("this asks for too many ports", f"name {MOST_PORTS} of them or fewer")
        result += [Port(port, port) for port in range(first, last + 1)]
    return result


def _image(value: Value) -> str:
    text = value.text()
    kind, _, image = text.partition(":")
    if kind != "docker" or not image:
        fix = "write docker:IMAGE for a container, or remove it"
        value.reject(f"'{value.shown}' is an image of a cloud's machines; {_MACHINES}", fix)
    return image


def _infra(value: Value) -> list[str]:
    """`ssh/POOL` names a pool of machines: a fleet."""
    cloud, _, pool = value.text().partition("/")
    if cloud.lower() == "ssh" and pool and pool != "*":
        return [pool.partition("/")[0]]
    _without_effect(value)
    return []


def _without_effect(value: Value) -> None:
    if isinstance(value.node, Text) and value.text().lower() in ("false", "any", "*"):
        return
    value.warn(f"has no effect: {_MACHINES}", "name a fleet with infra: ssh/FLEET, or remove it")


def _choices(value: Value) -> NoReturn:
    value.reject("this version takes one set of resources", "write the one you want")


def _volumes(value: Value) -> NoReturn:
    value.reject("this version has no volumes of clouds", "use file_mounts with a bucket")


def _ignored(name: str) -> Field:
    about = "Chooses machines of a cloud; without effect."
    return Field(name, about, _without_effect, ANY, "skypilot", "accepted")


RESOURCES = (
    Field("cpus", "CPUs: `4`, `4+`.", _cpus, NUMBER, "skypilot"),
    Field("memory", "Memory: `16`, `16+`, `32GB`.", _memory, NUMBER, "skypilot"),
    Field("accelerators", "GPUs: `A100:8`, `{A100: 8}`.", _accelerators, ANY, "skypilot"),
    Field("disk_size", "Space that must be free for scratch.", _disk, NUMBER, "skypilot"),
    Field("ports", "Ports that are forwarded.", _ports, one_or_many(TEXT), "skypilot"),
    Field("image_id", "`docker:IMAGE`.", _image, TEXT, "skypilot"),
    Field("infra", "`ssh/FLEET`.", _infra, TEXT, "skypilot"),
    Field("any_of", "Refused.", _choices, ANY, "skypilot", "refused"),
    Field("ordered", "Refused.", _choices, ANY, "skypilot", "refused"),
    Field("volumes", "Refused.", _volumes, ANY, "skypilot", "refused"),
    Field("use_spot", "Without effect.", _without_effect, FLAG, "skypilot", "accepted"),
    *map(
        _ignored,
        (
            *("cloud", "region", "zone", "instance_type", "disk_tier", "local_disk"),
            *("network_tier", "labels", "autostop", "priority", "priority_class"),
            *("max_hourly_cost", "accelerator_args", "job_recovery", "spot_recovery"),
        ),
    ),
)


def read_resources(value: Value) -> Wanted:
    """The whole mapping."""
    given: dict[str, Any] = read_table(value, RESOURCES)
    own = Resources(
        cpu=given.get("cpus", Cpu()),
        memory=given.get("memory"),
        gpu=given.get("accelerators"),
        disk=given.get("disk_size"),
    )
    return Wanted(own, given.get("image_id"), given.get("ports", []), given.get("infra", []))
