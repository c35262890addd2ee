"""Sizes, durations and ranges as people write them, and back. Everything is 1024-based, as in
dstack and Slurm: `24GB`, `24GiB` and `24g` are the same number of bytes.

`parse_*` raise `BadValue`. `size_text` and `duration_text` are exact, so that they parse back to
the same number; `format_size` and `format_duration` are rounded, for people.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T", int, float)

UNITS = ("B", "KB", "MB", "GB", "TB", "PB")
_SIZE = r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*(?:([KMGTP])?(?:I?B)?|B)\s*"
_DURATION_PARTS = (("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,3})?"
_DURATION = r"\s*" + "".join(rf"(?:({_NUMBER})\s*{unit}\s*)?" for unit, _ in _DURATION_PARTS)


class BadValue(ValueError):
    """A text that its grammar does not allow. `expected` completes "'text' is not ...", so that
    a caller who must not show the text can say the rest."""

    def __init__(self, text: str, expected: str, fix: str = "") -> None:
        self.expected = expected
        self.fix = fix
        super().__init__(f"'{text}' is not {expected}" + (f"; {fix}" if fix else ""))


def parse_size(text: str, unit: str = "GB") -> int:
    """Bytes of `24GB`, `512 MB`, `1.5tb`, `80g`; a bare number counts in `unit`."""
    match = re.fullmatch(_SIZE, text, re.IGNORECASE)
    if match is None:
        raise BadValue(text, "a size such as 512MB, 24GB or 1.5TB")
    number, prefix = match.groups()
    if prefix:
        unit = f"{prefix.upper()}B"
    elif text.strip()[-1] in "bB":
        unit = "B"
    factor: int = 1024 ** UNITS.index(unit)
    return round(float(number) * factor) if "." in number else int(number) * factor


def size_text(size: int) -> str:
    """The exact size in the largest unit that needs no fraction: `24GB`, `1536MB`, `17B`."""
    power = 0
    while size and size % 1024 == 0 and power < len(UNITS) - 1:
        size //= 1024
        power += 1
    return f"{size}{UNITS[power]}"


def format_size(size: float) -> str:
    """A rounded size for people: `214 B`, `3.1 MB`, `48 GB`."""
    power = 0
    while round(size) >= 1024 and power < len(UNITS) - 1:
        size /= 1024
        power += 1
    digits = 1 if power and size < 9.95 else 0
    return f"{size:.{digits}f} {UNITS[power]}"


def format_progress(done: float, total: float) -> str:
    """So much of all, for people: `3.1 of 9.4 GB`, `214 MB of 9.4 GB`."""
    begun, _, unit = format_size(done).partition(" ")
    whole = format_size(total)
    return f"{begun} of {whole}" if whole.endswith(f" {unit}") else f"{begun} {unit} of {whole}"


def parse_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `1h30m`, `1.5h`, `2d`, `1w`; larger units come first."""
    if re.fullmatch(rf"\s*{_NUMBER}\s*", text):
        return float(text)
    match = re.fullmatch(_DURATION, text, re.IGNORECASE)
    if match is None or not any(match.groups()):
        raise BadValue(text, "a duration such as 90s, 45m, 1h30m or 2d")
    pairs = zip(match.groups(), _DURATION_PARTS, strict=True)
    return round(sum(float(number) * seconds for number, (_, seconds) in pairs if number), 3)


def parse_limit(text: str, *, minus_one: bool = False) -> float | None:
    """A duration, or None for `off` (and for `-1` where that means the same)."""
    if text.strip().lower() in ("off", "false", "no") or (minus_one and text.strip() == "-1"):
        return None
    try:
        return parse_duration(text)
    except BadValue as error:
        raise BadValue(text, f"{error.expected}, or off") from None


def duration_text(seconds: float) -> str:
    """The duration, exact to the millisecond: `1h30m`, `2d`, `0.25s`."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    text = ""
    for unit, length in _DURATION_PARTS:
        count, whole = divmod(whole, length)
        if unit == "s" and thousandths:
            text += f"{count}.{thousandths:03d}".rstrip("0") + "s"
        elif count:
            text += f"{count}{unit}"
    return text or "0s"


def format_duration(seconds: float) -> str:
    """A rounded duration for people, two units at most: `4ms`, `1.2s`, `48s`, `1h30m`."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    shown: list[str] = []
    for unit, length in _DURATION_PARTS:
        count, rest = divmod(whole, length)
        if count or shown:
            shown.append(f"{count}{unit}" if count else "")
            whole = rest
        if len(shown) == 2:
            break
    return "".join(shown)


def parse_range(text: str, parse: Callable[[str], T]) -> tuple[T | None, T | None]:
    """The bounds of `8`, `2..8`, `2..`, `..8`; an exact value gives twice the same."""
    low_text, dots, high_text = text.partition("..")
    if not dots:
        value = parse(text)
        return value, value
    low = parse(low_text) if low_text.strip() else None
    high = parse(high_text) if high_text.strip() else None
    if low is None and high is None:
        raise BadValue(text, "a range", "write at least one bound: 2.., ..8 or 2..8")
    if low is not None and high is not None and low > high:
        raise BadValue(text, "a range", "its lower bound is above its upper bound")
    return low, high


def range_text(low: T | None, high: T | None, show: Callable[[T], str]) -> str:
    """The range as `parse_range` reads it."""
    if low is not None and low == high:
        return show(low)
    return f"{'' if low is None else show(low)}..{'' if high is None else show(high)}"
