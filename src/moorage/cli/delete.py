"""`moorage delete`: forget runs that have ended."""

from __future__ import annotations

import click

from moorage.cli.render import printable
from moorage.cli.session import asks, confirm, connect, naming, runs_argument, yes_option


@click.command()
@runs_argument
@yes_option
def delete(runs: tuple[str, ...], yes: bool) -> int:
    """Delete finished runs and their output.

    What they wrote to volumes stays. A run that has not ended is refused: stop it first.

    \b
    Examples:
      moorage delete train
      moorage delete -y 41 42 43
    """
    with connect() as client:
        named = []
        for ref in runs:
            with naming(client, ref):
                named.append(client.run(ref).summary)
        if not yes and asks():
            names = ", ".join(f"{run.name} ({run.id})" for run in named)
            if not confirm(f"Delete {printable(names)} with its output?"):
                return 1
        for run in named:
            client.delete(run.id)
            click.echo(f"run {run.name} ({run.id}) deleted")
    return 0
