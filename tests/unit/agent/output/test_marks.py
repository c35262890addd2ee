from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.agent.output import marks
from moorage.agent.output.marks import Mark


def write(path: Path, found: list[Mark]) -> None:
    path.write_text("".join(f"{mark.at:.3f} {mark.offset}\n" for mark in found))


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 3000), step=st.integers(1, 10**9), since=st.floats(-10, 3010))
def test_the_marks_around_a_moment_are_those_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, count: int, step: int, since: float
) -> None:
    path = tmp_path_factory.mktemp("marks") / "output.marks"
    known = [Mark(float(n), n * step) for n in range(count)]
    write(path, known)
    earlier = [mark for mark in known if mark.at < since]
    later = known[len(earlier) :]
    assert marks.around(path, since) == (
        earlier[-1] if earlier else None,
        later[0] if later else None,
    )
    assert marks.newest(path) == (known[-1] if known else None)


def test_a_month_of_marks_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "output.marks"
    write(path, [Mark(1.7e9 + n, n * 400) for n in range(200_000)])
    read = 0
    pread = os.pread

    def counted(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal read
        read += length
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", counted)
    assert marks.around(path, 1.7e9 + 150_000.5) == (
        Mark(1.7e9 + 150_000, 150_000 * 400),
        Mark(1.7e9 + 150_001, 150_001 * 400),
    )
    assert marks.newest(path) == Mark(1.7e9 + 199_999, 199_999 * 400)
    assert read < 32_768


def test_without_a_file_or_with_half_a_line_there_is_no_mark(tmp_path: Path) -> None:
    path = tmp_path / "output.marks"
    assert marks.newest(path) is None
    assert marks.around(path, 5.0) == (None, None)
    marks.append(path, Mark(1.0, 7))
    with path.open("a") as file:
        file.write("2.000 1")
    assert marks.newest(path) == Mark(1.0, 7)
    marks.append(tmp_path / "missing" / "output.marks", Mark(1.0, 7))
