"""`moorage plan`: what `apply` would do."""

from __future__ import annotations

import sys

import click

from moorage.cli.launch import consider
from moorage.cli.prepare import read_file, read_fleet, require_plain
from moorage.cli.preview import as_document, describe
from moorage.cli.render import style_of
from moorage.cli.resources import resource_options, with_resources
from moorage.cli.session import connect, file_option, json_option, print_json, print_lines
from moorage.errors import InvalidInput


@click.command()
@file_option
@click.option("-n", "--name", help="Name of the run, instead of the file's.")
@click.option(
    "-e", "--env", multiple=True, metavar="K[=V]", help="A variable; bare: as it is here."
)
@click.option("--show-spec", is_flag=True, help="Print the native file that does the same.")
@resource_options
@json_option
@click.argument("args", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGS...]")
def plan(
    file: str, name: str | None, env: tuple[str, ...], show_spec: bool, as_json: bool,
    args: tuple[str, ...], **resources: str | None,
) -> None:  # fmt: skip
    """Show what `apply` would do; changes nothing.

    What would run where, why it would wait, what would be uploaded with sizes, and every problem
    at once (exit code 2). Values that come from your environment are not shown.

    \b
    Examples:
      moorage plan -f train.yml
      moorage plan -f .dstack.yml --show-spec > train.yml
      moorage plan -f train.yml --gpu A100:2
      moorage plan -f train.yml --json
    """
    fleet = read_fleet(file)
    if fleet is not None:
        from moorage.cli.fleets import show_plan

        require_plain(name, env, args, resources)
        with connect() as client:
            show_plan(client, fleet, show_spec=show_spec, as_json=as_json)
        return
    # The file printed stands for others too: what may follow -- is left open unless it is given.
    prepared = read_file(file, name=name, env=env, args=args or (None if show_spec else ()))
    prepared = with_resources(prepared, resources)
    if show_spec:
        from moorage.specs.show import dump

        sys.stdout.write(dump(prepared.shown, inherited=prepared.inherited))
        return
    with connect(node=True) as client:
        considered = consider(client, prepared)
    if as_json:
        print_json(as_document(considered))
    else:
        print_lines(describe(considered, style_of(sys.stdout)))
    if considered.problems:
        raise InvalidInput(*considered.problems)
