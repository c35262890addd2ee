"""`moorage store ls`, `show`, `check` and `delete`."""

from __future__ import annotations

import sys
import time

import click

from moorage.cli.render import age, printable, say, style_of, table
from moorage.cli.session import (
    asks,
    confirm,
    connect,
    json_option,
    print_fields,
    print_json,
    print_lines,
    yes_option,
)
from moorage.cli.store_add import check_of, reached, tell_default
from moorage.cli.transport import segment
from moorage.protocol.stores import EMBEDDED, StorePage, StoreView

HEADERS = ("NAME", "KIND", "ENDPOINT", "CREDENTIALS", "BUCKETS", "DEFAULT")


@click.command("ls")
@click.option("-a", "--all", "everything", is_flag=True, help="Also kinds without credentials.")
@json_option
def list_stores(everything: bool, as_json: bool) -> None:
    """List object stores: declared ones, and the kinds that can be used without.

    BUCKETS counts those with a name (`moorage storage ls`).

    \b
    Examples:
      moorage store ls
      moorage store ls --all --json
    """
    with connect() as client:
        stores = client.transport.call("GET", "/v1/stores", StorePage).stores
    shown = [one for one in stores if everything or _is_of_use(one)]
    if as_json:
        print_json(StorePage(shown))
        return
    print_lines(table(HEADERS, [_row(one) for one in shown], style_of(sys.stdout)))
    for one in shown:
        if one.problem:
            say(f"store {one.name}: {printable(one.problem)}")


def _is_of_use(store: StoreView) -> bool:
    known = store.declared or store.default or store.storages > 0
    return known or store.credentials == "server" or store.name == EMBEDDED


def _row(store: StoreView) -> tuple[str, ...]:
    return (
        store.name,
        store.kind,
        store.endpoint or "-",
        store.credentials,
        str(store.storages),
        "yes" if store.default else "",
    )


@click.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show an object store, without its secrets.

    \b
    Example:
      moorage store show lab
    """
    with connect() as client:
        path = f"/v1/stores/{segment(name)}"
        view = client.transport.call("GET", path, StoreView)
    if as_json:
        print_json(view)
        return
    declared = f"by {view.user}, {age(view.created_at, time.time())}" if view.declared else "no"
    fields = {
        "store": f"{view.name}, {view.kind}",
        "endpoint": view.endpoint or "the kind's usual one",
        "region": view.region,
        "account": view.account,
        "addresses": "path style" if view.path_style else "",
        "access": reached(view),
        "role": view.role,
        "declared": declared,
        "default": "yes" if view.default else "no",
        "buckets": str(view.storages),
        "problem": view.problem,
    }
    print_fields(fields)


@click.command()
@click.argument("name")
@json_option
def check(name: str, as_json: bool) -> int:
    """Look whether an object store answers the server and takes its credentials.

    \b
    Example:
      moorage store check lab
    """
    with connect() as client:
        found = check_of(client, name)
    if as_json:
        print_json(found)
    elif found.problem:
        say(f"error: {printable(found.problem)}; {found.fix}".removesuffix("; "))
    else:
        many = "" if found.buckets == 1 else "s"
        count = "" if found.buckets is None else f", {found.buckets} bucket{many}"
        click.echo(f"{found.name} answers in {found.seconds * 1000:.0f} ms{count}")
    return 1 if found.problem else 0


@click.command()
@click.argument("name")
@yes_option
def delete(name: str, yes: bool) -> int:
    """Forget how to reach an object store; what is in it stays.

    Refused while a live run uses it, or a bucket in it has a name here.

    \b
    Example:
      moorage store delete lab
    """
    if not yes and asks() and not confirm(f"Forget store {name} and its secrets?"):
        say("nothing was changed")
        return 1
    with connect() as client:
        view = client.transport.call("DELETE", f"/v1/stores/{segment(name)}", StoreView)
    click.echo(f"store {name} is forgotten")
    tell_default(view)
    return 0
