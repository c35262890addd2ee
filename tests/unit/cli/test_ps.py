from __future__ import annotations

import pytest

from moorage.cli.ps import bounded, hidden_note, left_out, listing, select
from moorage.cli.render import Style
from moorage.protocol import api

NOW = 1_000_000.0
DAY = 86_400.0
PIPE = Style(colours=False, width=None)


def run(number: int, age: float, state: str = "queued", **fields: object) -> api.RunSummary:
    given = {"name": f"r{number}", "user": "u", "submitted_at": NOW - age, "state": state}
    return api.RunSummary(id=number, **{**given, **fields})


def serve(scripted, Reply, runs: list[api.RunSummary], size: int) -> None:
    """Pages of `size` runs, as the server gives them."""

    def page(request):
        matching = [
            r
            for r in runs
            if request.query.get("active") != "1" or r.state not in api.FINAL_STATES
        ]
        begin = int(request.query.get("cursor", 0))
        end = begin + min(size, int(request.query["limit"]))
        cursor = str(end) if end < len(matching) else None
        return Reply(api.RunPage(matching[begin:end], len(matching), cursor))

    scripted.routes["GET /v1/runs"] = page


def test_the_default_shows_what_lives_and_what_ended_within_a_day(scripted, client, Reply):
    runs = [
        run(5, 10),
        run(4, 20, "failed", ended_at=NOW - 5),
        run(3, 3 * DAY, "succeeded", ended_at=NOW - 60),
        run(2, 3 * DAY, "succeeded", ended_at=NOW - 2 * DAY),
        run(1, 9 * DAY, "running"),
    ]
    serve(scripted, Reply, runs, 1000)
    shown, total = select(client, NOW)
    assert ([r.id for r in shown], total) == ([5, 4, 3, 1], 5)
    assert hidden_note(len(shown), total) == "4 of 5 shown, -a for all"
    assert hidden_note(4, 5, newest=4) == "4 of 5 shown"
    assert hidden_note(5, 5) == ""
    assert len(scripted.seen) == 1


def test_an_old_run_that_still_runs_is_found_behind_many_pages(scripted, client, Reply):
    ended = [run(n, 5 * DAY, "succeeded", ended_at=NOW - 4 * DAY) for n in range(50, 1, -1)]
    serve(scripted, Reply, [run(51, 1), *ended, run(1, 9 * DAY, "running")], 10)
    shown, total = select(client, NOW)
    assert ([r.id for r in shown], total) == ([51, 1], 51)
    assert len(scripted.seen) == 2


def test_all_means_all_pages(scripted, client, Reply):
    serve(scripted, Reply, [run(n, 9 * DAY, "failed") for n in range(25, 0, -1)], 10)
    shown, total = select(client, NOW, everything=True)
    assert (len(shown), total) == (25, 25)
    assert hidden_note(25, 25) == ""


def test_of_thousands_that_wait_the_first_are_shown_and_the_others_counted():
    live = [run(20_000, 1, "running"), run(19_999, 1, "scheduled")]
    waiting = [run(n, 10, priority=int(n == 9000)) for n in range(10_000, 0, -1)]
    ended = [run(30_000 + n, 50, "succeeded", ended_at=NOW - n) for n in range(50)]
    runs = sorted([*live, *waiting, *ended], key=lambda r: -r.id)
    shown = bounded(runs)
    assert [r.id for r in shown] == [
        *range(30_039, 29_999, -1), 20_000, 19_999, 9000, *range(39, 0, -1)
    ]  # fmt: skip
    said = "and 9,960 more waiting, 10 more that ended, perhaps some of before: moorage ps --all"
    assert left_out(runs, shown, len(runs)) == said
    some = [run for run in runs if run.id > 9000]
    said = "and 960 more waiting, 10 more that ended: moorage ps --all"
    assert left_out(some, bounded(some), len(some)) == said
    said = "and 960 more waiting, 10 more that ended, 100 of before: moorage ps --all"
    assert left_out(some, bounded(some), len(some) + 100) == said
    few = runs[40:60]
    assert bounded(few) == few
    assert left_out(few, few, 7000) == ""


def test_the_newest_are_the_newest_whatever_their_state(scripted, client, Reply):
    serve(scripted, Reply, [run(n, 9 * DAY, "failed") for n in range(25, 0, -1)], 10)
    shown, total = select(client, NOW, newest=12)
    assert ([r.id for r in shown], total) == (list(range(25, 13, -1)), 25)


def test_a_row_says_why(scripted):
    rows = listing(
        [
            run(3, 60, "failed", reason="exit-code", message="it ended with 3", node="vm"),
            run(2, 60, "running", stopping=True, started_at=NOW - 50),
            run(1, 60, "scheduled", next_at=NOW + 7200),
        ],
        PIPE,
        NOW,
    )
    assert rows[1].endswith("it ended with 3")
    assert rows[2].endswith("is being stopped")
    assert rows[3].endswith("starts in 2h")
    assert "50s" in rows[2]


@pytest.mark.parametrize(
    ("width", "head"),
    [
        (60, "ID NAME STATE NODE REASON"),
        (80, "ID NAME STATE NODE SUBMITTED LASTED REASON"),
        (120, "ID NAME STATE NODE SUBMITTED LASTED REASON"),
    ],
)
def test_a_narrow_terminal_gets_names_and_states_whole(width, head):
    one = run(12, 90, "succeeded", name="amber-godwit-56", node="lab-0", message="m" * 90)
    lines = listing([one], Style(colours=False, width=width), NOW)
    assert lines[0].split() == head.split()
    assert lines[1].startswith("12  amber-godwit-56  succeeded  lab-0  ")
    assert max(map(len, lines)) <= width


def test_what_nobody_can_know_at_present_is_not_called_running():
    away = api.Away("lab-0", "lost", NOW - 40)
    one = run(2, 90, "running", node="lab-0", away=away, waits_for="node lab-0, which is lost")
    two = run(1, 90, "running", node="lab-1", away=api.Away("lab-1", "down"))
    lines = listing([one, two], PIPE, NOW)
    assert "  running (node lost)   lab-0  " in lines[1]
    assert lines[1].endswith("no contact with lab-0; last heard of 40s ago")
    assert "  running (no contact)  lab-1  " in lines[2]
    assert lines[2].endswith("no contact with lab-1")


def test_what_is_under_way_says_how_far_it_is():
    one = run(1, 90, "finishing", node="vm", doing="flushing 3.1 of 9.4 GB")
    assert listing([one], PIPE, NOW)[1].endswith("  flushing 3.1 of 9.4 GB")
