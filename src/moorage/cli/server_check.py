"""`moorage server check`: is everything that the server keeps as it should be?"""

from __future__ import annotations

import sys

import click

from moorage.cli import offline
from moorage.cli.autostart import running
from moorage.cli.client import Client
from moorage.cli.home import elsewhere, home_directory
from moorage.cli.lasting import Gauge
from moorage.cli.render import say
from moorage.cli.session import json_option, print_json
from moorage.protocol.api import CheckReply
from moorage.units import format_size


@click.command()
@click.option("--deep", is_flag=True, help="Also read all content and compare digests.")
@click.option("--repair", is_flag=True, help="Repair what can be, after a copy of the database.")
@json_option
def check(deep: bool, repair: bool, as_json: bool) -> int:
    """Prove what the server keeps; exit code 1 where something is wrong.

    Through the server while it runs, which goes on meanwhile; on the files where it does not.
    Each problem is one line with its repair. --repair needs the server stopped.

    \b
    Examples:
      moorage server check
      moorage server check --deep --json
      moorage server stop && moorage server check --repair
    """
    home = home_directory()
    address = elsewhere() or running(home)
    if repair:
        offline.require_stopped(home, "nothing is repaired")
    if repair or address is None:
        options = ["--deep"] if deep else []
        with Gauge("checking") as gauge:
            what = "repair" if repair else "check"
            reply = offline.call(home, what, CheckReply, gauge.show, *options)
    else:
        with Client(address=address) as client, Gauge("checking") as gauge:
            reply = client.check(deep=deep, on_progress=gauge.show)
    if as_json:
        print_json(reply)
    else:
        for line in lines(reply):
            click.echo(line)
    sys.stdout.flush()
    if not repair and any(finding.repairable for finding in reply.findings):
        say("to repair what is marked so: moorage server stop && moorage server check --repair")
    return 1 if reply.findings else 0


def lines(reply: CheckReply) -> list[str]:
    """A line a problem, and what was looked at."""
    found = [
        f"{finding.problem}: {'repairable: ' if finding.repairable else ''}{finding.remedy}"
        for finding in reply.findings
    ]
    counts = reply.checked
    looked = ""
    if counts:
        looked = (
            f"{counts['runs']} runs, {counts['jobs']} jobs, {counts['events']} events, "
            f"{counts['blobs']} blobs ({format_size(counts['content_bytes'])}"
            f"{', every one read' if reply.deep else ''})"
        )
    verdict = f"{len(found)} problems" if len(found) != 1 else "1 problem"
    return [*found, f"{verdict if found else 'no problems'}{f' in {looked}' if looked else ''}"]
