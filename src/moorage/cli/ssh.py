"""`moorage ssh`: the user's own ssh, into a running job."""

from __future__ import annotations

import os

import click

from moorage.cli import sshfiles
from moorage.cli.session import WholeNumber, connect, naming, run_argument
from moorage.errors import Conflict, Unavailable
from moorage.protocol.api import FINAL_STATES
from moorage.protocol.streams import nothing_runs


class _Ssh(click.Command):
    """Takes `--rank` right behind the run's name as well, as other verbs do: ssh has no such
    option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Its place is before the name."""
        option, _, value = args[1].partition("=") if len(args) > 1 else ("", "", "")
        if option == "--rank" and not args[0].startswith("-"):
            taken = 2 if value else 3
            args = [*args[1:taken], args[0], *args[taken:]]
        return super().parse_args(ctx, args)


@click.command(
    cls=_Ssh, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option(
    "--rank", type=WholeNumber(min=0), default=0, metavar="N", help="Rank of the job: 0."
)
@run_argument
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[SSH OPTIONS] [CMD...]")
def ssh(run: str, rank: int, words: tuple[str, ...]) -> int:
    """Open a shell in a running job by ssh.

    Everything behind the run's name goes to `ssh`: its options, then a command. It ends up in the
    job's working directory, with its variables, files and limits. For plain `ssh RUN`, `scp` and
    `rsync` see `moorage ssh-config`.

    \b
    Examples:
      moorage ssh train
      moorage ssh train -L 6006:localhost:6006
      moorage ssh --rank 2 train nvidia-smi
    """
    with connect() as client:
        with naming(client, run):
            view = client.run(run)
            summary = view.summary
        if summary.state != "running":
            ended = summary.state in FINAL_STATES
            raise Conflict(nothing_runs(summary.name, summary.state, ended=ended))
        sshfiles.public_key(client.home)
        entry = sshfiles.entry_of(client, view, rank)
        sshfiles.write_config(client, entry)
        config = sshfiles.directory(client.home) / sshfiles.CONFIG
    try:
        os.execvp("ssh", ["ssh", "-F", str(config), entry.name, *words])  # noqa: S606
    except OSError as error:
        raise Unavailable(f"ssh cannot be started here: {error.strerror}") from None
