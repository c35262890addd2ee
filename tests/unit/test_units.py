"""Sizes, durations and ranges."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.units import (
    BadValue,
    duration_text,
    format_duration,
    format_size,
    parse_duration,
    parse_limit,
    parse_range,
    parse_size,
    range_text,
    size_text,
)

GB = 1024**3


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GB", 24 * GB),
        ("24GiB", 24 * GB),
        ("24gb", 24 * GB),
        ("24g", 24 * GB),
        (" 24 GB ", 24 * GB),
        ("24", 24 * GB),
        ("512MB", 512 * 1024**2),
        ("1.5TB", 1536 * GB),
        ("0.5", GB // 2),
        ("7B", 7),
        ("1k", 1024),
        ("2PB", 2 * 1024**5),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_a_bare_size_counts_in_the_given_unit() -> None:
    assert parse_size("24", "MB") == 24 * 1024**2


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "8XB", "1,5GB", "٣GB", "1e3", "9" * 20])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(BadValue, match="is not a size such as 512MB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("90s", 90),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        ("1W2D3H4M5S", 788_645),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "h", "30m1h", "1h1h", "-1", "1y", "1.5.5h"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(BadValue, match="is not a duration such as 90s, 45m, 1h30m or 2d"):
        parse_duration(text)


def test_limits_may_be_off() -> None:
    assert parse_limit("off") is parse_limit("false") is parse_limit("No") is None
    assert parse_limit("1m") == 60
    assert parse_limit("-1", minus_one=True) is None
    with pytest.raises(BadValue, match=r"a duration such as .*, or off"):
        parse_limit("-1")


@pytest.mark.parametrize(
    ("text", "bounds"),
    [("8", (8, 8)), ("2..8", (2, 8)), ("2..", (2, None)), ("..8", (None, 8)), ("2 .. 8", (2, 8))],
)
def test_ranges(text: str, bounds: tuple[int | None, int | None]) -> None:
    assert parse_range(text, int) == bounds


@pytest.mark.parametrize(("text", "reason"), [("..", "at least one bound"), ("8..2", "is above")])
def test_what_is_not_a_range(text: str, reason: str) -> None:
    with pytest.raises(BadValue, match=reason):
        parse_range(text, int)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (214, "214 B"),
        (1023, "1023 B"),
        (3_250_000, "3.1 MB"),
        (12 * 1024, "12 KB"),
        (1024**2 - 1, "1.0 MB"),
        (48 * GB, "48 GB"),
        (5000 * 1024**5, "5000 PB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.0042, "4ms"),
        (0.0999, "0.1s"),
        (1.23, "1.2s"),
        (48.2, "48s"),
        (59.7, "1m"),
        (125, "2m5s"),
        (5400, "1h30m"),
        (3605, "1h"),
        (90_000, "1d1h"),
        (700_000, "1w1d"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 10**18))
def test_an_exact_size_parses_back(size: int) -> None:
    assert parse_size(size_text(size)) == size


@given(st.integers(0, 10**11))
def test_an_exact_duration_parses_back(thousandths: int) -> None:
    seconds = thousandths / 1000
    assert parse_duration(duration_text(seconds)) == seconds


@given(st.none() | st.integers(0, 2**40), st.none() | st.integers(0, 2**40))
def test_a_range_parses_back(low: int | None, high: int | None) -> None:
    if (low is None and high is None) or (low is not None and high is not None and low > high):
        return
    assert parse_range(range_text(low, high, size_text), parse_size) == (low, high)


@given(st.text(alphabet="0123456789.kmgtbihdws -", max_size=12))
def test_only_bad_value_is_raised(text: str) -> None:
    for parse in (parse_size, parse_duration, parse_limit):
        with suppress(BadValue):
            assert (parse(text) or 0) >= 0
