"""`moorage stop`: end runs."""

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
from moorage.protocol.api import FINAL_STATES


@click.command()
@runs_argument
@click.option("-x", "--abort", is_flag=True, help="Kill at once, without grace.")
@yes_option
def stop(runs: tuple[str, ...], abort: bool, yes: bool) -> int:
    """Stop runs.

    The job gets SIGTERM, and SIGKILL after its `stop_duration`. Returns at once; a run that has
    ended already is left as it is. Asks on a terminal; in a script or a pipe it stops at once.

    \b
    Examples:
      moorage stop train
      moorage stop -x 41 42    kill both now
    """
    with connect() as client:
        named, errors = named_runs(client, runs)
        if named and not yes and asks():
            names = ", ".join(f"{run.name} ({run.id})" for run in named)
            if not confirm(f"{'Kill' if abort else 'Stop'} {printable(names)}?"):
                return 1
        for run in named:
            if run.state in FINAL_STATES:
                click.echo(f"run {run.name} ({run.id}) has ended: {run.state}")
                continue
            after = client.stop(run.id, abort=abort)
            done = after.state if after.state in FINAL_STATES else "is being stopped"
            click.echo(f"run {run.name} ({run.id}) {done}")
    return report(errors)
