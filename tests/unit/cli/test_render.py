from __future__ import annotations

import io

import pytest

from moorage.cli.progress import Bar
from moorage.cli.render import (
    Style,
    age,
    cells,
    coarse,
    cut,
    lasted,
    printable,
    style_of,
    table,
)

PIPE = Style(colours=False, width=None)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (61, "1m"), (7200, "2h"), (90_000, "1d")]
)
def test_ages_have_one_unit(seconds, text):
    assert coarse(seconds) == text


def test_ages_know_past_and_future():
    assert age(100, 280) == "3m ago"
    assert age(280, 100) == "in 3m"
    assert age(100, 100.4) == "now"
    assert age(None, 1) == "-"


def test_what_has_not_begun_lasted_a_dash():
    assert lasted(None, None, 5) == "-"
    assert lasted(1, None, 5) == "4.0s"
    assert lasted(1, 91, 500) == "1m30s"


def test_a_table_in_a_pipe_is_never_cut():
    long = "x" * 300
    assert table(["A", "B"], [["1", long]], PIPE) == ["A  B", f"1  {long}"]


def test_a_table_on_a_terminal_fits_and_the_widest_column_gives_way():
    style = Style(colours=False, width=40)
    lines = table(["ID", "NAME", "REASON"], [["1", "short", "r" * 100], ["2", "x", "ok"]], style)
    assert max(map(cells, lines)) == 40
    assert lines[1].startswith("1   short  rrr")
    assert lines[1].endswith("…")


@pytest.mark.parametrize(
    ("width", "kept"),
    [
        (60, "NAME STATE REASON"),
        (80, "NAME STATE NODE LASTED REASON"),
        (120, "NAME STATE NODE AGE LASTED REASON"),
    ],
)
def test_what_matters_less_goes_first_and_the_state_stays_whole(width, kept):
    headers = ["NAME", "STATE", "NODE", "AGE", "LASTED", "REASON"]
    row = ["n" * 30, "running (node lost)", "gpu-1", "13d ago, maybe", "1h32m", "r" * 200]
    style = Style(colours=False, width=width)
    head, line = table(headers, [row], style, state=1, drop=["AGE", "LASTED", "NODE"])
    assert head.split() == kept.split()
    assert cells(line) == width
    assert line.startswith("n" * 19)
    assert "  running (node lost)  " in line


def test_without_columns_to_drop_all_give_way():
    style = Style(colours=False, width=30)
    lines = table(["A", "STATE"], [["a" * 40, "s" * 25]], style, state=1)
    assert max(map(cells, lines)) == 30


def test_columns_that_say_nothing_when_cut_stay_whole():
    style = Style(colours=False, width=10)
    assert table(["A", "B"], [["12345678", "12345678"]], style)[1] == "12345678  12345678"


def test_wide_characters_count_twice():
    assert cells("漢字") == 4
    assert cut("漢字漢字", 5) == "漢字…"
    assert cells("e\u0301") == 1


def test_control_characters_cannot_drive_the_terminal():
    assert printable("a\x1b[31mb\nc") == "a\ufffd[31mb c"
    assert table(["A"], [["\x1b]0;x\x07"]], PIPE)[1].isprintable()


def test_colours_are_for_terminals_without_no_color(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert style_of(io.StringIO()) == PIPE
    assert style_of(Terminal()).colours
    monkeypatch.setenv("NO_COLOR", "1")
    assert not style_of(Terminal()).colours


def test_only_the_state_is_painted_in_a_row():
    style = Style(colours=True, width=80)
    row = table(["A", "S"], [["1", "failed"]], style, state=1)[1]
    assert row == "1  \x1b[31mfailed\x1b[0m"


def test_progress_is_silent_in_a_pipe():
    out = io.StringIO()
    with Bar("uploading", out) as bar:
        bar.show(5, 10)
    assert out.getvalue() == ""


def test_progress_on_a_terminal_is_one_line_that_goes_away():
    out = Terminal()
    with Bar("uploading", out) as bar:
        bar.show(2048, 4096)
    assert "uploading 2.0 KB of 4.0 KB" in out.getvalue()
    assert out.getvalue().endswith("\r\x1b[K")
    assert "\n" not in out.getvalue()


def test_a_note_takes_the_line_until_it_is_over():
    out = Terminal()
    with Bar("copying", out) as bar:
        bar.note("lab://b does not answer")
        bar.show(1, 2)
        assert out.getvalue() == "\r\x1b[Klab://b does not answer"
        bar.note("")
        bar._drawn = 0.1
        bar.show(1, 2)
        assert "\r\x1b[Kcopying 1 B of 2 B" in out.getvalue()


def test_a_terminal_that_is_gone_ends_no_work():
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    with Bar("copying", Gone()) as bar:
        bar.show(1, 2)
        bar.note("lab://b does not answer")


def test_progress_tells_rate_and_what_is_left():
    bar = Bar("uploading", io.StringIO())
    text = bar.text(100 * 1024, 300 * 1024, 2.0)
    assert text == "uploading 100 KB of 300 KB, 50 KB/s, 4.0s left"
