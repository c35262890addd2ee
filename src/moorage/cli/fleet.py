"""`moorage fleet`: machines that are reached by ssh."""

from __future__ import annotations

import sys
import time

import click

from moorage.cli.client import Client
from moorage.cli.fleets import follow, hosts_table, jobs_of, lacks
from moorage.cli.groups import Commands
from moorage.cli.render import age, printable, say, style_of, table
from moorage.cli.session import (
    asks,
    confirm,
    connect,
    json_option,
    print_json,
    print_lines,
    yes_option,
)
from moorage.protocol.fleets import TROUBLED, FleetPage, FleetView

HEADERS = ("NAME", "STATE", "HOSTS", "READY", "FAILED", "JOBS", "CHANGED")
DROP = ("CHANGED", "JOBS", "FAILED", "READY")


@click.group(cls=Commands)
def fleet() -> None:
    """Machines that are reached by ssh.

    `moorage apply -f FILE` makes or changes a fleet; see `moorage schema fleet`.

    \b
    Examples:
      moorage apply -f fleet.yml
      moorage fleet show lab
      moorage fleet delete lab
    """


@fleet.command("ls")
@json_option
def list_fleets(as_json: bool) -> None:
    """List fleets.

    \b
    Examples:
      moorage fleet ls
      moorage fleet ls --json
    """
    with connect() as client:
        fleets = client.fleets()
    if as_json:
        print_json(FleetPage(fleets))
        return
    if not fleets:
        say("there is no fleet; make one: moorage apply -f fleet.yml")
        return
    now = time.time()
    rows = [_row(view, now) for view in fleets]
    state = HEADERS.index("STATE")
    print_lines(table(HEADERS, rows, style_of(sys.stdout), state=state, drop=DROP))


def _row(view: FleetView, now: float) -> tuple[str, ...]:
    return (
        view.name,
        view.state,
        str(len(view.hosts)),
        str(sum(host.state == "ready" for host in view.hosts)),
        str(sum(host.state in TROUBLED for host in view.hosts)),
        str(sum(host.jobs for host in view.hosts)),
        age(view.updated_at, now),
    )


@fleet.command("show")
@click.argument("name")
@json_option
def show_fleet(name: str, as_json: bool) -> None:
    """Show a fleet: its hosts, what they can and cannot do, and what is wrong.

    \b
    Example:
      moorage fleet show lab
    """
    with connect() as client:
        view = client.fleet(name)
    if as_json:
        print_json(view)
        return
    now = time.time()
    print_lines(
        [
            f"fleet     {printable(view.name)}, {view.state}",
            f"placement {view.spec.placement}; runtime {view.spec.runtime}",
            f"created   {age(view.created_at, now)}, changed {age(view.updated_at, now)}",
            *hosts_table(view, style_of(sys.stdout)),
            *(f"note: {printable(text)}" for text in lacks(view)),
            *(
                printable(f"{host.node}: {host.message}{f'; {host.fix}' if host.fix else ''}")
                for host in view.hosts
                if host.message
            ),
        ]
    )


@fleet.command("delete")
@click.argument("name")
@click.option("--force", is_flag=True, help="Kill its jobs; forget hosts that do not answer.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it is gone.")
@yes_option
def delete_fleet(name: str, force: bool, detach: bool, yes: bool) -> int:
    """Delete a fleet: its hosts drain, then the agent and its files are removed from them.

    Waits for the jobs that run there, however long they take; Ctrl-C stops the waiting, not the
    deletion. The output that jobs left on the hosts is lost. Asks on a terminal; in a script or a
    pipe it deletes at once.

    \b
    Examples:
      moorage fleet delete lab
      moorage fleet delete lab --force -y
    """
    with connect() as client:
        view = client.fleet(name)
        jobs = sum(host.jobs for host in view.hosts)
        told = f" and {'kill' if force else 'wait for'} {jobs_of(jobs)}" if jobs else ""
        hosts = "1 host" if len(view.hosts) == 1 else f"{len(view.hosts)} hosts"
        if not yes and asks() and not confirm(f"Remove {hosts}{told}?"):
            say("nothing was changed")
            return 1
        return _delete(client, name, force, detach)


def _delete(client: Client, name: str, force: bool, detach: bool) -> int:
    if detach:
        client.delete_fleet(name, force=force)
        say(f"fleet {name} is being deleted; see moorage fleet show {name}")
        return 0
    try:
        left = follow(client, name, lambda: client.delete_fleet(name, force=force), _is_over)
    except KeyboardInterrupt:
        say(f"the deletion goes on; see moorage fleet show {name}")
        raise
    if left is None or not left.hosts:
        say(f"fleet {name} is deleted")
        return 0
    for host in left.hosts:
        why = printable(f"{host.message}; {host.fix}".removesuffix("; "))
        say(f"error: {host.node} ({host.host}) cannot be removed: {why}")
    say(f"it is tried again; moorage fleet delete {name} --force forgets such hosts")
    return 1


def _is_over(view: FleetView) -> bool:
    """Is there nothing to wait for, but for what somebody has to help with?"""
    return all(host.stuck for host in view.hosts)
