"""`moorage exec`: one more command in a running job."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack

import click

from moorage.cli.remote import Remote
from moorage.cli.screen import raw, size
from moorage.cli.session import WholeNumber, connect, naming, run_argument
from moorage.cli.streaming import open_stream
from moorage.errors import InvalidInput, Problem
from moorage.protocol.streams import Command


@click.command(context_settings={"ignore_unknown_options": False})
@run_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
@click.option(
    "--rank", type=WholeNumber(min=0), default=0, metavar="N", help="Rank of the job: 0."
)
@click.option("--job", type=WholeNumber(min=0), metavar="N", help="One job of a schedule, from 0.")
@click.option("-i", "--input", "takes_input", is_flag=True, help="Pass standard input on.")
@click.option(
    "-t", "--terminal", is_flag=True, help="Give it a terminal, and input from this one."
)
def exec(
    run: str,
    command: tuple[str, ...],
    rank: int,
    job: int | None,
    takes_input: bool,
    terminal: bool,
) -> int:
    """Run a command in a running job.

    It gets the job's user, variables, working directory, files and limits, and is gone when the
    job ends or this command does. Its exit code is passed on; so are signals.

    \b
    Examples:
      moorage exec train -- nvidia-smi
      moorage exec -t train -- bash            look around
      moorage exec -i train -- tar x < new.tar
    """
    if terminal and not (sys.stdin.isatty() and sys.stdout.isatty()):
        problem = Problem("there is no terminal here", "leave it out, or use -i", "--terminal")
        raise InvalidInput(problem)
    rows, columns = size() if terminal else (24, 80)
    wanted = Command(list(command), terminal, os.environ.get("TERM", "xterm"), rows, columns)
    with connect() as client, ExitStack() as undo:
        with naming(client, run):
            server, _ = open_stream(client, run, wanted, rank=rank, job=job)
        undo.callback(server.close)
        if terminal:
            undo.enter_context(raw(sys.stdin.fileno()))
        remote = Remote(server, takes_input or terminal, terminal)
        return remote.attend(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
