from __future__ import annotations

import io

import pytest

from moorage.data.objects import sending
from moorage.data.objects.sending import pieces


def test_what_is_on_the_way_has_not_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PIECE", 10)
    told: list[int] = []
    reading = pieces(io.BytesIO(bytes(range(48))), 45, 20, told.append)
    seen = []
    for piece in reading:
        seen.append((len(piece), sum(told)))
    assert seen == [(10, 0), (10, 0), (10, 0), (10, 10), (5, 20)]
    assert sum(told) == 45


def test_a_file_that_became_shorter_ends_it() -> None:
    told: list[int] = []
    assert b"".join(pieces(io.BytesIO(b"abc"), 10, 0, told.append)) == b"abc"
    assert sum(told) == 3
