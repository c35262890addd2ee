"""`moorage storage delete`: a bucket and what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import click

from moorage.cli.client import Client
from moorage.cli.render import printable, say
from moorage.cli.session import asks, confirm, connect, json_option, print_json, report, yes_option
from moorage.cli.transport import segment
from moorage.errors import InvalidInput, MoorageError, NotFound, Problem
from moorage.protocol.stores import StorageGone, StoragePage, StorageView

POLL = 30.0
"""Seconds that one request of the waiting may last."""


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("-a", "--all", "everything", is_flag=True, help="All that have a name.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it is gone.")
@yes_option
@json_option
def delete(
    names: tuple[str, ...], everything: bool, detach: bool, yes: bool, as_json: bool
) -> int:
    """Delete buckets that moorage made, with all that is in them.

    A bucket that moorage did not make is only forgotten. Refused while a live run uses it. In a
    name, * and ? stand for any characters.

    \b
    Examples:
      moorage storage delete checkpoints
      moorage storage delete scratch-1 'test-*' -y
    """
    gone: list[StorageGone] = []
    errors: list[MoorageError] = []
    if everything == bool(names):
        raise InvalidInput(Problem("write either names or --all", field="NAME"))
    with connect() as client:
        for name in _expanded(client, names, everything):
            try:
                if yes or not asks() or _wanted(client, name):
                    gone.append(_delete(client, name, 0.0 if detach else POLL))
            except MoorageError as error:
                errors.append(error)
    if as_json:
        print_json(gone)
    else:
        for one in gone:
            _tell(one)
    waits = [one for one in gone if one.state == "deleting" and not detach]
    return report(errors) or (1 if waits else 0)


def _expanded(client: Client, names: Sequence[str], everything: bool) -> list[str]:
    """Every name once; patterns as what they match. NotFound where one matches nothing."""
    if not everything and not any(_is_pattern(name) for name in names):
        return list(dict.fromkeys(names))
    page = client.transport.call("GET", "/v1/storages", StoragePage)
    known = [one.name for one in page.storages]
    if everything:
        if not known:
            say("no bucket has a name")
        return known
    found: dict[str, None] = {}
    for name in names:
        fitting = [one for one in known if fnmatchcase(one, name)]
        if _is_pattern(name) and not fitting:
            raise NotFound(f"no storage is called {name}; see moorage storage ls")
        found |= dict.fromkeys(fitting if _is_pattern(name) else [name])
    return list(found)


def _is_pattern(name: str) -> bool:
    return "*" in name or "?" in name


def _wanted(client: Client, name: str) -> bool:
    view = client.transport.call("GET", f"/v1/storages/{segment(name)}", StorageView)
    if not view.made:
        return True
    left = "; what its runs left on nodes is lost" if view.unflushed else ""
    if confirm(f"Delete {view.uri} and all that is in it{left}?"):
        return True
    say("nothing was changed")
    return False


def _delete(client: Client, name: str, timeout: float) -> StorageGone:
    """Until it is gone, or cannot go now."""
    path = f"/v1/storages/{segment(name)}"
    while True:
        query = {"timeout": timeout}
        gone = client.transport.call("DELETE", path, StorageGone, query=query, again=True)
        if gone.state != "deleting" or gone.message or not timeout:
            return gone


def _tell(gone: StorageGone) -> None:
    why = printable(gone.message)
    if gone.state == "deleted":
        click.echo(f"storage {gone.name} is deleted")
    elif gone.state == "forgotten":
        click.echo(f"storage {gone.name} is forgotten: {why}")
    elif why:
        say(f"error: storage {gone.name} cannot be deleted now, and is tried again: {why}")
    else:
        click.echo(f"storage {gone.name} is being deleted; see moorage storage ls")
