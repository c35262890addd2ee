"""`moorage server collect`: what was kept for long enough goes now."""

from __future__ import annotations

import click

from moorage.cli.lasting import Gauge
from moorage.cli.session import connect, json_option, print_json
from moorage.protocol.api import CollectReply
from moorage.units import format_size


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
def collect(dry_run: bool, as_json: bool) -> None:
    """Remove what was kept for long enough: runs, events, output, content.

    Happens by itself every few minutes. How long and how much is kept is in config.yml
    (docs/reference/settings.md). Content that only removed runs named goes a day later.

    \b
    Examples:
      moorage server collect --dry-run
      moorage server collect
    """
    with connect() as client, Gauge("counting" if dry_run else "removing") as gauge:
        reply = client.collect(dry_run=dry_run, on_progress=gauge.show)
    if as_json:
        print_json(reply)
        return
    for line in lines(reply, "to remove" if dry_run else "removed"):
        click.echo(line)


def lines(reply: CollectReply, done: str) -> list[str]:
    """What happened, a line a kind."""
    counts = (
        (f"{reply.runs} finished runs, with their output", reply.runs),
        (f"{reply.jobs} finished jobs of schedules, with their output", reply.jobs),
        (f"{reply.events} events", reply.events),
        (f"{reply.requests} request ids", reply.requests),
        (
            f"output of {reply.outputs} attempts, {format_size(reply.output_bytes)}",
            reply.outputs,
        ),
        (f"{reply.blobs} blobs, {format_size(reply.bytes)}", reply.blobs or reply.bytes),
    )
    found = [f"{done}: {what}" for what, count in counts if count] or [f"nothing {done}"]
    if reply.database_bytes:
        found.append(f"the database is {format_size(reply.database_bytes)} smaller")
    return found + [f"skipped: {what}" for what in reply.skipped]
