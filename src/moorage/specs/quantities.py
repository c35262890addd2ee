"""The short forms of resources: `arm64:2`, `24GB..`, `nvidia:A100,H100:40GB..80GB:1..4`.

Each parser takes the text and raises `BadValue`; the `*_text` functions write the same back.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import structs

from moorage.specs.resources import Cpu, Gpu, Range
from moorage.units import BadValue, parse_range, parse_size, range_text, size_text

ARCHITECTURES = {
    **dict.fromkeys(("x86", "x86_64", "x86-64", "amd64", "x64"), "x86"),
    **dict.fromkeys(("arm", "arm64", "aarch64"), "arm"),
}
VENDORS = {
    **dict.fromkeys(("google", "tpu"), "google"),
    **dict.fromkeys(("tenstorrent", "tt"), "tenstorrent"),
    **{name: name for name in ("nvidia", "amd", "intel")},
}
_NUMBER = r"\s*[0-9]{1,9}(?:\.[0-9]{1,3})?\s*"


def parse_number_range(text: str) -> Range:
    """`4`, `0.5`, `2..8`; not negative."""
    return Range(*parse_range(text, _number))


def parse_count_range(text: str) -> Range:
    """`4`, `2..8`; whole numbers."""
    return Range(*parse_range(text, _count))


def parse_size_range(text: str) -> Range:
    """`24GB`, `24GB..`, `8..16` (GB); bytes, more than nothing."""
    return _positive(text, Range(*parse_range(text, parse_size)), "a size")


def parse_cpus(text: str) -> Range:
    """A count of CPUs, more than none; fractions of one are fine."""
    return _positive(text, parse_number_range(text), "a number of CPUs")


def parse_architecture(text: str) -> str:
    """`x86` or `arm`, also under the names that machines use."""
    arch = ARCHITECTURES.get(text.strip().lower())
    if arch is None:
        raise BadValue(text, "a CPU architecture: x86 or arm")
    return arch


def parse_vendor(text: str) -> str:
    """The vendor's usual name, also under its aliases."""
    vendor = VENDORS.get(text.strip().lower())
    if vendor is None:
        raise BadValue(text, f"a GPU vendor: {', '.join(sorted(set(VENDORS.values())))}")
    return vendor


def parse_cpu(text: str) -> Cpu:
    """`4`, `2..8`, `arm:8..`, `arm64:2`, `x86`: architecture and count in any order."""
    expected = "a CPU request such as 4, 2..8 or arm:8.."
    arch: str | None = None
    count: Range | None = None
    for token in text.split(":"):
        if token.strip()[:1].isalpha():
            if arch is not None:
                raise BadValue(text, expected, "name one architecture")
            if token.strip().lower() not in ARCHITECTURES and ":" not in text:
                raise BadValue(text, expected)
            arch = parse_architecture(token)
        elif count is None:
            count = parse_cpus(token)
        else:
            raise BadValue(text, expected, "write one count")
    return Cpu(count or Cpu().count, arch)


def parse_gpu(text: str) -> Gpu:
    """Vendor, names, memory and count, separated by `:`, in any order, each at most once."""
    gpu = Gpu()
    seen: set[str] = set()
    for token in text.split(":"):
        part = _gpu_part(token.strip(), text)
        (kind,) = part
        if kind in seen:
            fix = f"it gives the {kind} twice"
            if kind == "name":
                fix = f"'{token.strip()[:20]}' is no count and no size; names have commas between"
            raise BadValue(text, "a GPU request such as H100:2 or A100,H100:80GB:1", fix)
        seen.add(kind)
        gpu = structs.replace(gpu, **part)
    return gpu


def _gpu_part(token: str, text: str) -> dict[str, Any]:
    """The field of `Gpu` that a token gives."""
    expected = "a GPU request such as 1, A100:2, 24GB.. or nvidia:A100,H100:40GB..:1..4"
    if not token:
        raise BadValue(text, expected, "a part between colons is empty")
    if token.lower() in VENDORS:
        return {"vendor": parse_vendor(token)}
    if token[0].isalpha():
        names = [name.strip() for name in token.split(",")]
        if not all(names):
            raise BadValue(text, expected, "a name between commas is empty")
        return {"name": names}
    try:
        if re.search(r"[a-zA-Z]", token):
            return {"memory": parse_size_range(token)}
        return {"count": parse_count_range(token)}
    except BadValue as error:
        raise BadValue(text, expected, error.fix) from None


def gpu_doubts(text: str, gpu: Gpu) -> list[tuple[str, str]]:
    """What a short GPU request may not mean as its writer thinks, with what to write instead."""
    count = gpu.count
    bare = re.fullmatch(r"\s*[0-9]+\s*", text)
    if bare and count.min is not None and count.min > 8:
        number = int(count.min)
        return [(f"this asks for {number} GPUs", f"for GPU memory write {number}GB")]
    if count == Gpu().count and not re.search(r"(^|:)\s*1\s*\.\.", text):
        return [
            ("no count is given: one GPU or more, and one is reserved", f"write {text.strip()}:1")
        ]
    return []


def cpu_text(cpu: Cpu) -> str:
    """The short form of a CPU request."""
    count = number_range_text(cpu.count)
    return f"{cpu.arch}:{count}" if cpu.arch else count


def number_range_text(span: Range) -> str:
    """`2..8`."""
    return range_text(span.min, span.max, _number_text)


def size_range_text(span: Range) -> str:
    """`8GB..16GB`; the bounds are bytes."""
    return range_text(span.min, span.max, lambda size: size_text(int(size)))


def _number(text: str) -> float:
    if not re.fullmatch(_NUMBER, text):
        raise BadValue(text, "a number or a range such as 4, 2..8 or 2..")
    return float(text)


def _count(text: str) -> float:
    number = _number(text)
    if number % 1:
        raise BadValue(text, "a whole number")
    return number


def _number_text(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".")


def _positive(text: str, span: Range, what: str) -> Range:
    if span.max == 0 or (span.min == 0 and ".." not in text):
        raise BadValue(text, f"{what} above zero")
    return span if span.min else Range(None, span.max)
