"""Pieces of several channels on one stream, cut anywhere."""

from __future__ import annotations

import pytest

from moorage import frames


@pytest.mark.parametrize("cut", [1, 2, 7, 1000])
def test_pieces_come_out_as_they_went_in_wherever_they_are_cut(cut: int) -> None:
    sent = [(frames.OUTPUT, b"hello"), (frames.ERRORS, b""), (frames.EXIT, b"\x07")]
    data = b"".join(frames.piece(*one) for one in sent)
    pieces = frames.Pieces()
    got = [one for at in range(0, len(data), cut) for one in pieces.take(data[at : at + cut])]
    assert got == sent


def test_another_language_is_refused() -> None:
    with pytest.raises(frames.Torn):
        list(frames.Pieces().take(b"SSH-2.0-OpenSSH\r\n"))


def test_a_size_is_read_back() -> None:
    [(channel, body)] = frames.Pieces().take(frames.size(24, 80))
    assert (channel, frames.read_size(body)) == (frames.SIZE, (24, 80))
    with pytest.raises(frames.Torn):
        frames.read_size(b"1")
