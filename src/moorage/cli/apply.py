"""`moorage apply`: run what a file describes."""

from __future__ import annotations

import click

from moorage.cli.launch import launch
from moorage.cli.prepare import read_file, read_fleet, require_plain
from moorage.cli.resources import resource_options, with_resources
from moorage.cli.session import connect, file_option, yes_option


@click.command()
@file_option
@click.option("-n", "--name", help="Name of the run, instead of the file's.")
@click.option(
    "-e", "--env", multiple=True, metavar="K[=V]", help="A variable; bare: as it is here."
)
@click.option("-d", "--detach", is_flag=True, help="Do not wait; print its number.")
@yes_option
@resource_options
@click.argument("args", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGS...]")
def apply(
    file: str, name: str | None, env: tuple[str, ...], detach: bool, yes: bool,
    args: tuple[str, ...], **resources: str | None,
) -> int:  # fmt: skip
    """Run what a file describes, or connect the machines of a fleet.

    Shows what will run where and what will be uploaded, asks on a terminal, uploads, submits, and
    stays: the output comes here, and the exit code is the job's. Ctrl-C asks whether to detach
    (the run goes on) or to stop it; a second Ctrl-C detaches. ARGS become ${{ run.args }}.

    A fleet's hosts are connected in parallel, with a line of progress for each; the table at the
    end says what each can and cannot do. Applying the changed file adds and removes hosts. The
    exit code is 1 if one of them failed.

    \b
    Examples:
      moorage apply -f train.yml
      moorage apply -f fleet.yml
      moorage apply -f train.yml -y -d -n night -e LR=0.1 -- --epochs 20
      moorage apply -f train.yml --gpu H100:2 --memory 64GB..
      generate-task | moorage apply -f -
    """
    fleet = read_fleet(file)
    if fleet is not None:
        from moorage.cli.fleets import apply_fleet

        require_plain(name, env, args, resources)
        with connect() as client:
            return apply_fleet(client, fleet, detach=detach, yes=yes)
    prepared = with_resources(read_file(file, name=name, env=env, args=args), resources)
    with connect(node=True) as client:
        return launch(client, prepared, detach=detach, yes=yes)
