"""`moorage events`: what happened."""

from __future__ import annotations

import sys
import time

import click
import msgspec

from moorage.cli.render import Style, printable, say, style_of
from moorage.cli.session import complete_runs, connect, json_option, naming
from moorage.protocol.api import Event


@click.command()
@click.option("-w", "--watch", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--run", shell_complete=complete_runs, help="Only those of one run.")
@json_option
def events(watch: bool, run: str | None, as_json: bool) -> int:
    """List what happened, or watch it.

    With --json, one document a line.

    \b
    Examples:
      moorage events --run train
      moorage events -w --json
    """
    style = style_of(sys.stdout)
    with connect() as client:
        number = None
        if run is not None:
            with naming(client, run):
                number = client.run(run).summary.id
        try:
            since = 0 if number is not None else None  # of one run, also what has happened
            for event in client.events(since=since, run=number, follow=watch, on_open=_hint):
                line = msgspec.json.encode(event).decode() if as_json else describe(event, style)
                sys.stdout.write(line + "\n")
                if watch:
                    sys.stdout.flush()
        except KeyboardInterrupt:
            return 0
    return 0


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
