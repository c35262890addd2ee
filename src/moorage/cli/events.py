"""`moorage events`: what happened."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import click
import msgspec

from moorage.cli.client import Client
from moorage.cli.render import Style, printable, say, style_of
from moorage.cli.session import WholeNumber, complete_runs, connect, json_option, naming
from moorage.protocol.api import Event


@click.command()
@click.option("-w", "--watch", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--run", shell_complete=complete_runs, help="Only those of one run.")
@click.option(
    "-n", "--newest", type=WholeNumber(min=1, max=1000), metavar="N", help="Only the last N."
)
@json_option
def events(watch: bool, run: str | None, newest: int | None, as_json: bool) -> int:
    """List what happened, or watch it.

    With --json, one document a line.

    \b
    Examples:
      moorage events --run train
      moorage events -n 20
      moorage events -w --json
    """
    style = style_of(sys.stdout)
    with connect() as client:
        number = None
        if run is not None:
            with naming(client, run):
                number = client.run(run).summary.id
        try:
            for event in _wanted(client, number, newest, watch):
                line = msgspec.json.encode(event).decode() if as_json else describe(event, style)
                sys.stdout.write(line + "\n")
                if watch:
                    sys.stdout.flush()
        except KeyboardInterrupt:
            return 0
    return 0


def _wanted(client: Client, run: int | None, newest: int | None, watch: bool) -> Iterator[Event]:
    since = 0 if run is not None else None  # of one run, also what has happened
    if newest is not None:
        found = client.newest_events(newest, run)
        yield from found
        since = found[-1].seq if found else since
    if watch or newest is None:
        yield from client.events(since=since, run=run, follow=watch, on_open=_hint)


def _hint() -> None:
    if sys.stderr.isatty():
        say("watching; Ctrl-C ends")


def describe(event: Event, style: Style) -> str:
    """One event in one line."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
    parts = []
    if event.run is not None:
        parts.append(f"{event.run_name or 'run'} ({event.run})")
    if event.node:
        parts.append(f"on {event.node}")
    parts += [f"{key}={value}" for key, value in event.data.items() if value not in (None, "")]
    head = f"{style.paint(clock, 'dim')}  {style.paint(f'{event.kind:<14}', 'bold')}"
    return f"{head}  {printable('  '.join(parts))}".rstrip()
