"""`moorage server`: the server of this machine."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import click
from click.core import ParameterSource
from msgspec import Struct

from moorage.cli import autostart
from moorage.cli.client import Client
from moorage.cli.groups import Commands
from moorage.cli.home import Address, elsewhere, home_directory
from moorage.cli.render import coarse
from moorage.cli.server_backup import backup, restore
from moorage.cli.server_check import check
from moorage.cli.server_collect import collect
from moorage.cli.server_connect import ca, connect, disconnect
from moorage.cli.server_migrate import migrate_store
from moorage.cli.session import await_node, json_option, print_json, talking
from moorage.errors import InvalidInput, NotFound, Problem, Unavailable, Unreachable
from moorage.protocol.api import Info, ServerView

SILENT = 15.0
"""Seconds after which a server that says nothing is not called a standby any more."""
STOP_TIMEOUT = 60.0
"""Seconds in which a server must end after SIGTERM."""


class Status(Struct, frozen=True):
    """What `server status --json` prints."""

    url: str
    pid: int | None
    home: str
    info: Info


@click.group(cls=Commands)
def server() -> None:
    """The server of this machine.

    The first command that needs one starts it in the background. Jobs go on while it is stopped;
    the next start finds them again.

    \b
    Examples:
      moorage server status
      moorage server stop
      moorage server run        in the foreground
    """


@server.command()
@json_option
def status(as_json: bool) -> None:
    """Say which server answers, and what it does. Exit code 5 where none does.

    \b
    Examples:
      moorage server status
      moorage server status --json
    """
    home = home_directory()
    address = elsewhere() or autostart.running(home)
    if address is None:
        raise Unreachable(f"no server runs for {home}; start it: moorage server start")
    with talking(Client(address=address)) as client:
        info = client.info()
    if as_json:
        print_json(Status(address.url, address.pid, str(home), info))
        return
    process = f", process {address.pid}" if address.pid else ""
    up = coarse(max(0.0, time.time() - info.started_at))
    click.echo(f"running at {address.url}{process}, for {up}")
    click.echo(f"version {info.version}, store {info.database}, user {info.user}")
    if info.store != "sqlite":
        click.echo(f"role {info.role}, epoch {info.epoch}")
        for line in _servers(info):
            click.echo(line)
    live = ", ".join(f"{count} {state}" for state, count in info.runs.items() if count)
    click.echo(f"runs: {live or 'none'}")
    if address.secure:
        click.echo(f"other machines reach it at {', '.join(address.secure)}")
    if address.pid:
        click.echo(f"home {home}, log {home / 'server.log'}")


def _servers(info: Info) -> list[str]:
    """A line for each server on the database, the leader first."""
    return [
        f"  {view.url}  {role(view)}, version {view.version}, "
        f"heard of {coarse(max(0.0, view.age))} ago"
        for view in info.servers
    ]


def role(view: ServerView) -> str:
    """What a server does, as far as the others have heard."""
    if view.age > SILENT:
        return "silent"
    return "leads" if view.leads else "stands by"


def _not_empty(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """An empty text is a variable of a script that is not set: the server must not open another
    database than was meant."""
    given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    if given and not value.strip():
        raise InvalidInput(
            Problem("it is empty", "write sqlite or postgresql://HOST/DATABASE", "--database")
        )
    return value


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """How a server is to run; remembered in its home."""
    for option in (
        click.option(
            "--node-name", default="", metavar="NAME", help="Of this machine: its hostname."
        ),
        click.option(
            "--listen",
            multiple=True,
            metavar="ADDRESS[:PORT]",
            help="Also listen there, with TLS, for other machines; several; off ends it.",
        ),
        click.option(
            "--database",
            default="",
            callback=_not_empty,
            metavar="URL",
            help="postgresql://HOST/DATABASE, for several servers; sqlite is the default.",
        ),
    ):
        command = option(command)
    return command


def _arguments(database: str, node_name: str, listen: Sequence[str]) -> list[str]:
    given = [("--database", database), ("--node-name", node_name)]
    given += [("--listen", place) for place in listen]
    return [word for option, value in given if value for word in (option, value)]


@server.command()
@server_options
def start(database: str, node_name: str, listen: tuple[str, ...]) -> None:
    """Start the server in the background, unless it runs.

    The database, the name and where to listen are remembered for the next start. A password does
    not belong into the URL here: use ~/.pgpass, PGPASSWORD, $MOORAGE_DATABASE or `database` in
    config.yml.

    \b
    Examples:
      moorage server start
      moorage server start --database postgresql://db.example/moorage
      moorage server start --listen 10.0.0.5:7321
    """
    home = home_directory()
    address, started = autostart.ensure(home, _arguments(database, node_name, listen))
    if not started and (database or node_name or listen):
        raise Unavailable(
            f"a server runs already on {address.place}, perhaps with other options; stop it "
            "first: moorage server stop"
        )
    if started:
        with Client(home=home) as client:
            await_node(client)
    word = "started" if started else "runs already"
    click.echo(f"server {word} on {address.place}, process {address.pid}")


@server.command()
def stop() -> None:
    """Stop the server of this machine; its jobs go on.

    \b
    Example:
      moorage server stop
    """
    home = home_directory()
    address = autostart.running(home)
    if address is None or address.pid is None:
        click.echo("no server runs")
        return
    _end(address, address.pid)
    click.echo(f"server stopped (it was on {address.place})")


def _end(address: Address, pid: int) -> None:
    """SIGTERM, then wait for the end of the process itself, which need not be a child."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        ended, _, _ = select.select([process], [], [], STOP_TIMEOUT)
    except ProcessLookupError:
        return
    finally:
        os.close(process)
    if not ended:
        raise Unavailable(
            f"the server at {address.place} (process {pid}) has not ended within "
            f"{STOP_TIMEOUT:.0f} s; see moorage server logs"
        )


@server.command()
@server_options
def run(database: str, node_name: str, listen: tuple[str, ...]) -> None:
    """Run the server in the foreground, until Ctrl-C.

    \b
    Examples:
      moorage server run
      moorage server run --database postgresql://db.example/moorage
    """
    home = home_directory()
    address = autostart.running(home)
    if address is not None:
        raise Unavailable(
            f"a server runs already on {address.place}; stop it first: moorage server stop"
        )
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _become([*autostart.server_command(home), *_arguments(database, node_name, listen)])


@server.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written, until Ctrl-C.")
def logs(follow: bool) -> None:
    """Print the log of the background server.

    \b
    Examples:
      moorage server logs
      moorage server logs -f
    """
    path = home_directory() / "server.log"
    if not path.exists():
        raise NotFound(f"no server has run in the background here: {path} does not exist")
    if follow:
        _become(["tail", "-n", "+1", "-F", "--", str(path)])
    _print_file(path)


for command in (ca, connect, disconnect, collect, check, backup, restore, migrate_store):
    server.add_command(command)


def _become(command: list[str]) -> NoReturn:
    """Replace this process: signals and the exit code are then those of the program itself."""
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606 - no shell, which is the point


def _print_file(path: Path) -> None:
    with path.open("rb") as log:
        while block := log.read(65_536):
            sys.stdout.buffer.write(block)
