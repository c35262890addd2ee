"""`moorage wait`: block until runs have ended."""

from __future__ import annotations

import click

from moorage.cli.outcome import exit_code, sentence
from moorage.cli.session import connect, json_option, naming, print_json, runs_argument, seconds
from moorage.errors import MoorageError
from moorage.protocol.api import FINAL_STATES


@click.command()
@runs_argument
@click.option("--timeout", metavar="DURATION", help="Give up after this long (exit code 1).")
@json_option
def wait(runs: tuple[str, ...], timeout: str | None, as_json: bool) -> int:
    """Wait until runs have ended.

    Ends with the exit code of the first named run that did not succeed, else with 0.

    \b
    Examples:
      moorage wait train && moorage logs train
      moorage wait --timeout 1h 41 42 43
    """
    limit = seconds(timeout, "--timeout") if timeout else None
    code = 0
    summaries = []
    with connect() as client:
        for ref in runs:
            with naming(client, ref):
                view = client.wait(ref, limit)
            if view.summary.state not in FINAL_STATES:
                raise MoorageError(
                    f"run {view.summary.name} is still {view.summary.state} after {timeout}"
                )
            code = code or exit_code(view)
            summaries.append(view.summary)
            if not as_json:
                click.echo(sentence(view))
    if as_json:
        print_json(summaries)
    return code
