"""`moorage ps`: which runs there are."""

from __future__ import annotations

import os
import sys
import time

import click

from moorage.cli.client import Client
from moorage.cli.render import Style, age, lasted, say, state_of, style_of, table
from moorage.cli.session import WholeNumber, connect, json_option, print_json, print_lines
from moorage.errors import InvalidInput, MoorageError, Problem
from moorage.protocol.api import COUNTED, FINAL_STATES, RunPage, RunSummary

RECENT = 86_400.0
"""Seconds for which a run that has ended is still shown."""
AT_MOST = 40
"""Runs that wait, and runs that ended, which a table shows without -a. What is live otherwise is
limited by the machines."""
HEADERS = ("ID", "NAME", "STATE", "NODE", "SUBMITTED", "LASTED", "REASON")
STATE = HEADERS.index("STATE")
DROP = ("SUBMITTED", "LASTED", "NODE", "REASON")
"""What a narrow terminal does without, in this order."""
REFRESH = 2.0
"""Seconds after which the ages of a live table are drawn anew."""
CALM = 0.2
"""Seconds between two drawings, however much happens."""


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also what ended long ago.")
@click.option("-n", "--newest", type=WholeNumber(min=1), metavar="N", help="The newest N.")
@click.option("-w", "--watch", is_flag=True, help="Keep the table up to date.")
@json_option
def ps(everything: bool, newest: int | None, watch: bool, as_json: bool) -> None:
    """List runs.

    Shows what has not ended and what ended within the last day, of many the first that wait and
    the last that ended, and says when there is more.

    \b
    Examples:
      moorage ps               what runs, waits, or ended today
      moorage ps --all         all runs that the server knows
      moorage ps -w            a live table, until Ctrl-C
      moorage ps -n 5 --json   the newest five, for a program
    """
    if watch and (as_json or not sys.stdout.isatty()):
        raise InvalidInput(
            Problem("needs a terminal", "a program can read: moorage events -w --json", "-w")
        )
    with connect() as client:
        if watch:
            _watch(client, everything, newest)
            return
        runs, total = select(client, time.time(), everything=everything, newest=newest)
    if as_json:
        print_json(RunPage(runs, total))
        hidden = hidden_note(len(runs), total, newest)
    else:
        limited = not everything and newest is None
        shown = bounded(runs) if limited else runs
        print_lines(listing(shown, style_of(sys.stdout), time.time()))
        hidden = left_out(runs, shown, total) or hidden_note(len(shown), total, newest)
    if hidden:
        say(hidden)
    elif not runs and not as_json:
        say("no runs yet; start one: moorage run -- echo hello")


def select(
    client: Client, now: float, *, everything: bool = False, newest: int | None = None
) -> tuple[list[RunSummary], int]:
    """The runs to show, newest first, and how many there are in all."""
    if newest is not None:
        return _newest(client, newest)
    page = client.page()
    total = page.total
    runs = list(page.runs)
    shown = {run.id: run for run in runs}
    while page.cursor is not None and (everything or runs[-1].submitted_at > now - RECENT):
        page = client.page(cursor=page.cursor)
        runs = page.runs
        shown.update((run.id, run) for run in runs)
    if page.cursor is not None:  # what still runs may have been submitted long ago
        shown.update((run.id, run) for run in client.runs(active=True))
    chosen = [run for run in shown.values() if everything or _is_recent(run, now)]
    return sorted(chosen, key=lambda run: run.id, reverse=True), max(total, len(chosen))


def _newest(client: Client, wanted: int) -> tuple[list[RunSummary], int]:
    page = client.page(limit=min(wanted, 1000))
    runs = list(page.runs)
    while page.cursor is not None and len(runs) < wanted:
        page = client.page(limit=min(wanted - len(runs), 1000), cursor=page.cursor)
        runs += page.runs
    return runs, max(page.total, len(runs))


def _is_recent(run: RunSummary, now: float) -> bool:
    return run.state not in FINAL_STATES or (run.ended_at or run.submitted_at) > now - RECENT


def bounded(runs: list[RunSummary]) -> list[RunSummary]:
    """These runs without most of those that wait, but for the first in line, and of those that
    ended, but for the latest; in the same order."""
    waiting = sorted(filter(_waits, runs), key=lambda run: (-run.priority, run.id))
    ended = sorted(filter(_has_ended, runs), key=lambda run: run.ended_at or 0.0, reverse=True)
    dropped = {run.id for run in (*waiting[AT_MOST:], *ended[AT_MOST:])}
    return [run for run in runs if run.id not in dropped]


def _waits(run: RunSummary) -> bool:
    return run.state == "queued"


def _has_ended(run: RunSummary) -> bool:
    return run.state in FINAL_STATES


def left_out(runs: list[RunSummary], shown: list[RunSummary], total: int) -> str:
    """What must be said where `bounded` left out some; empty where it did not."""
    waiting, ended = (
        sum(map(kind, runs)) - sum(map(kind, shown)) for kind in (_waits, _has_ended)
    )
    if not waiting and not ended:
        return ""
    counts = {"more waiting": waiting, "more that ended": ended}
    if total < COUNTED:
        counts["of before"] = total - len(runs)
    told = [f"{count:,} {what}" for what, count in counts.items() if count > 0]
    if total >= COUNTED:  # the server counts no further
        told.append("perhaps some of before")
    return f"and {', '.join(told)}: moorage ps --all"


def hidden_note(shown: int, total: int, newest: int | None = None) -> str:
    """What must be said where rows are left out; empty where none is. With `newest`, they were
    asked for, and -a would not bring the others."""
    if shown >= total:
        return ""
    return f"{shown} of {total} shown" + ("" if newest is not None else ", -a for all")


def listing(runs: list[RunSummary], style: Style, now: float) -> list[str]:
    """The table of runs."""
    if not runs:
        return []
    return table(HEADERS, [_row(run, now) for run in runs], style, state=STATE, drop=DROP)


def _row(run: RunSummary, now: float) -> tuple[str, ...]:
    reason = run.message or run.reason
    if run.stopping and run.state not in FINAL_STATES:
        reason = "is being stopped"
    elif run.state == "scheduled" and run.next_at is not None:
        reason = f"starts {age(run.next_at, now)}"
    elif run.away is not None:
        since = "" if run.away.since is None else f"; last heard of {age(run.away.since, now)}"
        reason = f"no contact with {run.away.node}{since}"
    elif run.waits_for:
        reason = f"waits for {run.waits_for}"
    elif run.doing:
        reason = run.doing
    return (
        str(run.id),
        run.name,
        state_of(run.state, run.away),
        run.node or "-",
        age(run.submitted_at, now),
        lasted(run.started_at, run.ended_at, now),
        reason,
    )


def _watch(client: Client, everything: bool, newest: int | None) -> None:
    from threading import Event, Thread  # 5 ms that a plain listing does without

    changed = Event()
    broken: list[MoorageError] = []

    def listen() -> None:
        try:
            for _ in client.events(follow=True, on_open=changed.set):
                changed.set()
        except MoorageError as error:
            broken.append(error)
            changed.set()

    Thread(target=listen, daemon=True).start()
    calm = Event()
    try:
        while not broken:
            changed.clear()
            now = time.time()
            runs, total = select(client, now, everything=everything, newest=newest)
            if not everything and newest is None:
                runs = bounded(runs)
            _draw(runs, total, now)
            changed.wait(REFRESH)
            calm.wait(CALM)  # never set: a limit on drawings, while more changes gather
    except KeyboardInterrupt:
        sys.stdout.write("\n")  # the terminal has shown ^C there
        return
    raise broken[0]


def _draw(runs: list[RunSummary], total: int, now: float) -> None:
    style = style_of(sys.stdout)
    lines = listing(runs, style, now) or ["no runs"]
    room = max(3, os.get_terminal_size(sys.stdout.fileno()).lines - 2)
    shown = len(runs)
    if len(lines) > room:
        lines = lines[:room]
        shown = room - 1
    note = f"{shown} of {total} shown; " if shown < total else ""
    lines.append(style.paint(f"{note}Ctrl-C ends", "dim"))
    sys.stdout.write("\x1b[H\x1b[J" + "\n".join(lines) + "\n")
    sys.stdout.flush()
