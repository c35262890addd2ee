"""`moorage storage ls`, `show` and `adopt`."""

from __future__ import annotations

import sys
import time

import click

from moorage.cli.render import age, printable, say, style_of, table
from moorage.cli.session import connect, json_option, print_fields, print_json, print_lines
from moorage.cli.storage_cleanup import unfinished
from moorage.cli.storage_create import give_name
from moorage.cli.transport import segment
from moorage.errors import InvalidInput, Problem
from moorage.protocol.stores import StoragePage, StorageRequest, StorageView
from moorage.units import format_size

HEADERS = ("NAME", "STORE", "STATE", "OBJECTS", "SIZE", "LAST USED", "USED BY")
_STATE = 2
_SHOWN = 3


@click.command("ls")
@click.option(
    "--check", is_flag=True, help="Look at the stores: what is missing, others', how big."
)
@json_option
def list_storages(check: bool, as_json: bool) -> None:
    """List buckets that have a name, as `name:` gives them one.

    With --check the stores themselves are asked: `ready` and counted, `missing` (deleted, and not
    by moorage), or `foreign` (there, and not made by moorage; also those without a name here).
    Uploads that nobody finished are told of: they take room, and are no objects.

    \b
    Examples:
      moorage storage ls
      moorage storage ls --check --json
    """
    with connect() as client:
        query = {"check": check}
        page = client.transport.call("GET", "/v1/storages", StoragePage, query=query)
    if as_json:
        print_json(page)
        return
    for problem in page.problems:
        say(f"warning: {printable(problem)}")
    if not page.storages:
        say("no bucket has a name; write file_mounts with a `name:`, and run it")
        return
    now = time.time()
    rows = [_row(view, now) for view in page.storages]
    drop = ("OBJECTS", "LAST USED", "USED BY")
    print_lines(table(HEADERS, rows, style_of(sys.stdout), state=_STATE, drop=drop))
    for view in page.storages:
        if view.message:
            say(printable(f"{view.name}: {view.message}"))
        if view.unfinished is not None:
            say(printable(f"{view.name}: {unfinished(view.unfinished, view.name, now)}"))


def _row(view: StorageView, now: float) -> tuple[str, ...]:
    return (
        view.name,
        view.store,
        view.state,
        "-" if view.objects is None else str(view.objects),
        "-" if view.bytes is None else format_size(view.bytes),
        age(view.last_used, now),
        _users(view),
    )


def _users(view: StorageView) -> str:
    names = [run.name for run in view.used_by]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more or "-"


@click.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show a bucket that has a name: where it is, whose, and who uses it.

    Its store is asked for uploads that nobody finished, which no listing shows.

    \b
    Example:
      moorage storage show checkpoints
    """
    with connect() as client:
        path = f"/v1/storages/{segment(name)}"
        view = client.transport.call("GET", path, StorageView, query={"check": True})
    if as_json:
        print_json(view)
        return
    now = time.time()
    since = age(view.created_at, now)
    run = f" for run {view.made_by}" if view.made_by is not None else ""
    made = f"by moorage{run}, {since}"
    counted = ""
    if view.objects is not None and view.bytes is not None:
        seen = age(view.looked_at, now)
        noun = "object" if view.objects == 1 else "objects"
        counted = f"{view.objects} {noun}, {format_size(view.bytes)} (counted {seen})"
    fields = {
        "storage": f"{view.name}, {view.state}",
        "address": view.uri,
        "made": made if view.made else f"not by moorage: never deleted; known since {since}",
        "stays": "yes" if view.persistent else "until the last run that uses it has ended",
        "holds": counted,
        "begun": unfinished(view.unfinished, view.name, now),
        "used": age(view.last_used, now),
        "used by": _users(view),
        "unflushed": ", ".join(view.unflushed),
        "message": view.message,
    }
    print_fields(fields)
    if view.unflushed:
        say(f"attempts left data on their nodes; moorage storage flush {view.name}")


@click.command()
@click.argument("name", metavar="NAME|ADDRESS")
@click.option("--store", default="", help="Where it is; default: the default store.")
@json_option
def adopt(name: str, store: str, as_json: bool) -> None:
    """Give a bucket that is there a name, so that `name:` finds it. It is never deleted.

    The name is that of the bucket; STORE://BUCKET says the store as well.

    \b
    Examples:
      moorage storage adopt results --store lab
      moorage storage adopt s3://results
    """
    if "://" in name:
        name, store = _of_address(name, store)
    give_name(StorageRequest(name, store, adopt=True), as_json)


def _of_address(text: str, store: str) -> tuple[str, str]:
    from moorage.specs.stores.addresses import BadAddress
    from moorage.specs.stores.registry import locate

    try:
        found, address = locate(text)
    except BadAddress as error:
        raise InvalidInput(Problem(error.reason, error.fix, "NAME")) from None
    if address.path or address.region or address.account or store not in ("", found):
        fix = f"write moorage storage adopt {address.bucket} --store {store or found}"
        raise InvalidInput(Problem("only a whole bucket can have a name", fix, "NAME"))
    return address.bucket, found
