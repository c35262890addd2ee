"""`moorage delete`: forget runs that have ended."""

from __future__ import annotations

import click

from moorage.cli.render import printable
from moorage.cli.session import (
    asks,
    confirm,
    connect,
    named_runs,
    report,
    runs_argument,
    yes_option,
)
from moorage.errors import Conflict, MoorageError, NotFound


@click.command()
@runs_argument
@yes_option
def delete(runs: tuple[str, ...], yes: bool) -> int:
    """Delete finished runs and their output.

    What they wrote to volumes stays. A run that has not ended is refused: stop it first. Asks on
    a terminal; in a script or a pipe it deletes at once.

    \b
    Examples:
      moorage delete train
      moorage delete -y 41 42 43
    """
    with connect() as client:
        named, errors = named_runs(client, runs)
        if named and not yes and asks():
            names = ", ".join(f"{run.name} ({run.id})" for run in named)
            if not confirm(f"Delete {printable(names)} with all output?"):
                return 1
        failed: list[MoorageError] = [*errors]
        for run in named:
            try:
                client.delete(run.id)
            except (Conflict, NotFound) as error:
                failed.append(error)
            else:
                click.echo(f"run {run.name} ({run.id}) deleted")
    return report(failed)
