"""`moorage storage create`: a bucket before any run needs it."""

from __future__ import annotations

import click

from moorage.cli.render import printable
from moorage.cli.session import connect, json_option, print_json
from moorage.errors import InvalidInput, Problem
from moorage.protocol.stores import StorageRequest, StorageView


@click.command()
@click.argument("name")
@click.option("--store", default="", help="Where; default: the default store.")
@json_option
def create(name: str, store: str, as_json: bool) -> None:
    """Make a bucket that files can name by `name:`, as a run would make it.

    One that moorage made under this name is taken as it is.

    \b
    Examples:
      moorage storage create training-set
      moorage storage cp ./data training-set/v1
    """
    give_name(StorageRequest(name, store), as_json)


def give_name(request: StorageRequest, as_json: bool) -> None:
    """Ask the server, and say where the bucket is."""
    if not request.name:
        raise InvalidInput(Problem("the name of the bucket is empty", field="NAME"))
    with connect() as client:
        view = client.transport.call("POST", "/v1/storages", StorageView, body=request, again=True)
    if as_json:
        print_json(view)
    else:
        click.echo(printable(f"storage {view.name} is {view.uri}"))
