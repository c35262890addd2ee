"""`resources:` and what is in it."""

from __future__ import annotations

from collections.abc import Callable

from moorage.specs.fields.field import Field, require_table
from moorage.specs.nodes import Map, Text
from moorage.specs.quantities import (
    gpu_doubts,
    parse_architecture,
    parse_count_range,
    parse_cpu,
    parse_cpus,
    parse_gpu,
    parse_number_range,
    parse_size_range,
    parse_vendor,
)
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.schemas import NAME, NUMBER, RANGE, TEXT, mapping, one_or_many
from moorage.specs.values import Value
from moorage.units import parse_size


def span(parse: Callable[[str], Range]) -> Callable[[Value], Range]:
    """A reader of ranges: the text form, or `{min, max}` with bounds that `parse` understands."""

    def bound(value: Value) -> float:
        exact = value.parse(parse)
        if exact.min is None or exact.min != exact.max:
            value.reject("a bound is one value, not a range")
        return exact.min

    def read(value: Value) -> Range:
        if isinstance(value.node, Text):
            return value.parse(parse)
        table = (
            Field("min", "Lower bound.", bound, TEXT),
            Field("max", "Upper bound.", bound, TEXT),
        )
        given = require_table(value, table)
        if not given:
            value.reject("a range needs at least one bound", "write min, max or both")
        result = Range(given.get("min"), given.get("max"))
        if result.min is not None and result.max is not None and result.min > result.max:
            value.reject("the lower bound is above the upper bound")
        return result

    return read


CPU = (
    Field(
        "arch", "Architecture.", lambda v: v.parse(parse_architecture), NAME, form="`x86`, `arm`"
    ),
    Field("count", "How many; fractions are fine.", span(parse_cpus), RANGE, form="`2..8`, `0.5`"),
)


def read_cpu(value: Value) -> Cpu:
    """The short form, or `{arch, count}`."""
    if isinstance(value.node, Map):
        return Cpu(**require_table(value, CPU))
    return value.parse(parse_cpu)


def _names(value: Value) -> list[str]:
    return [item.text() for item in value.one_or_many()]


GPU = (
    Field(
        "vendor",
        "Vendor.",
        lambda v: v.parse(parse_vendor),
        NAME,
        form="`nvidia`, `amd`, `google` (`tpu`), `intel`, `tenstorrent` (`tt`)",
    ),
    Field("name", "Models, any of which will do.", _names, one_or_many(NAME), form="name or list"),
    Field("count", "How many.", span(parse_count_range), RANGE, default="`1..`"),
    Field("memory", "Memory of each.", span(parse_size_range), RANGE, form="`24GB`, `40GB..80GB`"),
    Field("total_memory", "Memory of all together.", span(parse_size_range), RANGE),
    Field(
        "compute_capability",
        "NVIDIA compute capability.",
        span(parse_number_range),
        RANGE,
        form="`8.6`, `8.0..9.0`",
    ),
)


def read_gpu(value: Value) -> Gpu | None:
    """The short form, or a mapping; None where no GPU is asked for."""
    if isinstance(value.node, Map):
        gpu = Gpu(**require_table(value, GPU))
    else:
        gpu = value.parse(parse_gpu)
        for doubt, fix in gpu_doubts(value.shown, gpu):
            value.warn(doubt, fix)
    if not gpu.count.min:
        if gpu.count.max != 0:
            value.warn("GPUs are optional here, so none is reserved", "write the count you need")
        return None
    return gpu


def _shm_size(value: Value) -> int:
    size = value.parse(parse_size)
    if not size:
        value.reject("the size must be above zero")
    return size


def _disk(value: Value) -> Range:
    if isinstance(value.node, Map) and "size" in value.node.entries:
        size = Field("size", "Size.", span(parse_size_range), RANGE)
        given = require_table(value, (size,))
        if "size" not in given:
            value.reject("a size is missing")
        result: Range = given["size"]
        return result
    return span(parse_size_range)(value)


RESOURCES = (
    Field(
        "cpu",
        "CPUs that the job reserves; the upper bound limits it.",
        read_cpu,
        {"anyOf": [NUMBER, mapping({row.name: row.schema for row in CPU})]},
        form="`4`, `2..8`, `x86:4..`, `arm64:2`, `{arch, count}`",
        default="`1..`",
    ),
    Field(
        "memory",
        "Memory that the job reserves; it is killed above the upper bound.",
        span(parse_size_range),
        RANGE,
        form="size or range; a plain number is GB",
        default="no limit",
    ),
    Field(
        "shm_size",
        "Size of `/dev/shm`.",
        _shm_size,
        NUMBER,
        form="size",
        default="the node's",
    ),
    Field(
        "gpu",
        "GPUs that the job reserves.",
        read_gpu,
        {"anyOf": [NUMBER, mapping({row.name: row.schema for row in GPU})]},
        form="vendor, names, memory and count in any order: `A100:40GB..:2`; or a mapping",
        default="none",
    ),
    Field(
        "disk",
        "Space that must be free where scratch lies.",
        _disk,
        {"anyOf": [*RANGE["anyOf"], mapping({"size": RANGE}, ("size",))]},
        form="size or range, `{size}`",
        default="any",
    ),
)


def read_resources(value: Value) -> Resources:
    """The whole mapping."""
    return Resources(**require_table(value, RESOURCES))
