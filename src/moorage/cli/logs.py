"""`moorage logs`: what a job printed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

import click

from moorage.cli.client import Client
from moorage.cli.follow import copy_output, report_gap
from moorage.cli.outcome import exit_code
from moorage.cli.ranklogs import Merged, in_turn
from moorage.cli.session import WholeNumber, connect, naming, run_argument, seconds
from moorage.protocol.api import FINAL_STATES
from moorage.specs.gang import ranks


@click.command()
@run_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--since", metavar="DURATION", help="Only the output of the last 5m, 2h, ...")
@click.option(
    "--job", type=WholeNumber(min=0), metavar="N", help="One job of a schedule, from 0: the last."
)
@click.option(
    "--rank", type=WholeNumber(min=0), metavar="N", help="One node of a job on several, from 0."
)
@click.option("--attempt", type=WholeNumber(min=1), metavar="N", help="One attempt only, from 1.")
def logs(
    run: str,
    follow: bool,
    since: str | None,
    job: int | None,
    rank: int | None,
    attempt: int | None,
) -> int:
    """Print the output of a run.

    Both streams of the job, in the order they were written, all attempts one after the other.
    With -f, ends with the job's exit code, as `apply` does. Of a job on several nodes, each line
    begins with its rank, unless one is chosen.

    \b
    Examples:
      moorage logs train
      moorage logs -f train
      moorage logs --since 5m train | grep loss
    """
    after = time.time() - seconds(since, "--since") if since else None
    with connect() as client:
        with naming(client, run):
            found = client.run(run)
        summary, number = found.summary, ranks(found.spec)

        def read(client: Client, rank: int) -> Iterable[bytes]:
            return client.logs(
                summary.id, job=job, attempt=attempt, rank=rank, follow=follow, since=after,
                on_gap=report_gap,
            )  # fmt: skip

        if rank is None and number > 1:
            several = Merged if follow else in_turn
            copy_output(several(client, number, read))
        else:
            copy_output(read(client, rank or 0))
        if not follow:
            return 0
        view = client.run(summary.id)
    sys.stdout.flush()
    return exit_code(view) if view.summary.state in FINAL_STATES else 0
