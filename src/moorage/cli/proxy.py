"""`moorage proxy`: what `ssh` runs in place of a connection."""

from __future__ import annotations

import os
import sys

import click

from moorage.cli import sshfiles
from moorage.cli.session import WholeNumber, connect, naming, run_argument
from moorage.cli.streaming import open_stream, relay
from moorage.cli.websocket import Closed
from moorage.errors import Unavailable
from moorage.protocol.streams import Shell


@click.command()
@run_argument
@click.option(
    "--rank", type=WholeNumber(min=0), default=0, metavar="N", help="Rank of the job: 0."
)
def proxy(run: str, rank: int) -> int:
    """Connect ssh to a run, on stdin and stdout.

    `ssh` starts it by itself, as the settings that `moorage ssh-config` writes tell it to.

    \b
    Example:
      ssh -o ProxyCommand='moorage proxy train' train
    """
    with connect() as client:
        key = sshfiles.public_key(client.home)
        with naming(client, run):
            server, opened = open_stream(client, run, Shell(key), rank=rank)
        try:
            sshfiles.remember(client.home, sshfiles.entry_name(run, rank), opened.host_key)
            for descriptor in (sys.stdin.fileno(), sys.stdout.fileno()):
                os.set_blocking(descriptor, False)
            relay(server, sys.stdin.fileno(), sys.stdout.fileno())
        except Closed as closed:
            raise Unavailable(f"the connection to {run} was lost: {closed}") from None
        finally:
            server.close()
    return 0
