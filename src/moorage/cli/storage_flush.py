"""`moorage storage flush`: what could not be uploaded when a job ended."""

from __future__ import annotations

import click

from moorage.cli.client import Client
from moorage.cli.render import printable, say
from moorage.cli.session import connect, json_option, print_json
from moorage.cli.transport import segment
from moorage.errors import NotFound
from moorage.protocol.stores import FlushReply

POLL = 30.0


@click.command()
@click.argument("what", metavar="RUN|NAME")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it is uploaded.")
@json_option
def flush(what: str, detach: bool, as_json: bool) -> int:
    """Upload what a run, or all runs that used a bucket, could not upload when they ended.

    It is on the nodes still. Ctrl-C stops the waiting, not the upload.

    \b
    Examples:
      moorage storage flush train-7
      moorage storage flush checkpoints
    """
    with connect() as client:
        try:
            reply = _flush(client, f"/v1/runs/{segment(what)}/flush", detach)
        except NotFound:
            try:
                reply = _flush(client, f"/v1/storages/{segment(what)}/flush", detach)
            except NotFound:
                fix = "moorage ps -a and moorage storage ls say which there are"
                raise NotFound(f"there is no run and no storage {what}; {fix}") from None
    if as_json:
        print_json(reply)
    else:
        _tell(what, reply)
    bad = ("failed", "away") if not detach else ("failed",)
    return 1 if any(one.state in bad for one in reply.attempts) else 0


def _flush(client: Client, path: str, detach: bool) -> FlushReply:
    """Until all are done, or cannot go on."""
    while True:
        query = {"timeout": 0.0 if detach else POLL}
        reply = client.transport.call("POST", path, FlushReply, query=query, again=True)
        if detach or not any(one.state == "asked" for one in reply.attempts):
            return reply


def _tell(what: str, reply: FlushReply) -> None:
    if not reply.attempts:
        click.echo(f"{what}: nothing was left on a node")
    for one in reply.attempts:
        place = printable(f"attempt {one.attempt} on {one.node}")
        why = printable(one.message)
        if one.state == "done":
            click.echo(f"{place}: all is in its buckets")
        elif one.state == "nothing":
            click.echo(f"{place}: nothing is left there")
        elif one.state == "asked":
            click.echo(f"{place}: it is being uploaded")
        elif one.state == "away":
            say(f"error: {place}: the node is not connected; try again when it is")
        else:
            say(f"error: {place}: {why}")
