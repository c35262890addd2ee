"""`moorage attach`: stay with a run that runs already."""

from __future__ import annotations

from collections.abc import Iterable

import click

from moorage.cli.client import Client
from moorage.cli.follow import copy_output, report_gap
from moorage.cli.outcome import exit_code, sentence
from moorage.cli.ports import forwarding
from moorage.cli.ranklogs import Merged
from moorage.cli.render import say
from moorage.cli.session import WholeNumber, connect, naming, run_argument
from moorage.errors import InvalidInput, Problem
from moorage.protocol.api import FINAL_STATES, RunRef
from moorage.specs.gang import ranks
from moorage.specs.ports import Port, parse_port
from moorage.units import BadValue


@click.command()
@run_argument
@click.option(
    "--port", "more", multiple=True, metavar="PORT", help="One more port: 8080, 80:8080, *:8080."
)
@click.option(
    "--rank", type=WholeNumber(min=0), default=0, metavar="N", help="Rank whose ports they are: 0."
)
def attach(run: str, more: tuple[str, ...], rank: int) -> int:
    """Follow a run, with its ports on this machine.

    Prints the output from the beginning, and forwards the run's `ports` until it has ended, or
    until Ctrl-C, after which it goes on. Ends with the job's exit code.

    \b
    Examples:
      moorage attach notebook
      moorage attach train --port 6006
    """
    added = [_port(text) for text in more]
    with connect() as client:
        with naming(client, run):
            view = client.run(run)
        name, number = view.summary.name, view.summary.id
        ports = [*view.spec.ports, *added] if view.summary.state not in FINAL_STATES else []
        count = ranks(view.spec)

        def read(client: Client, rank: int) -> Iterable[bytes]:
            return client.logs(number, rank=rank, follow=True, on_gap=report_gap)

        try:
            with forwarding(client, RunRef(number, name), ports, rank):
                copy_output(Merged(client, count, read) if count > 1 else read(client, 0))
            view = client.wait(number)
        except KeyboardInterrupt:
            say(f"detached; {name} goes on: moorage attach {name}")
            return 0
    say(sentence(view))
    return exit_code(view)


def _port(text: str) -> Port:
    try:
        return parse_port(text)
    except BadValue as error:
        raise InvalidInput(
            Problem(str(error), "write 8080, 80:8080 or *:8080", "--port")
        ) from None
