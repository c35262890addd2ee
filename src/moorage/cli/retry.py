"""`moorage retry`: a run that has ended, once more."""

from __future__ import annotations

import sys

import click

from moorage.cli.follow import follow
from moorage.cli.ports import forwarding
from moorage.cli.render import say
from moorage.cli.session import connect, naming, run_argument
from moorage.specs.gang import ranks


@click.command()
@run_argument
@click.option("-n", "--name", help="Name of the new run, instead of the same.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait; print its number.")
def retry(run: str, name: str | None, detach: bool) -> int:
    """Submit a run that has ended once more.

    As it was written, and with the files that were uploaded for it, whatever became of them here
    since. The new run has a number of its own. Stays with it as `apply` does.

    \b
    Examples:
      moorage retry train
      moorage retry 41 -n train-again -d
    """
    with connect(node=True) as client:
        with naming(client, run):
            made = client.retry(run, name=name)
        if detach:
            click.echo(f"{made.name} ({made.id})" if sys.stdout.isatty() else made.id)
            return 0
        say(f"run {made.name} ({made.id}) submitted")
        spec = client.run(made.id).spec
        with forwarding(client, made, spec.ports):
            return follow(client, made, ranks(spec), choice=True)
