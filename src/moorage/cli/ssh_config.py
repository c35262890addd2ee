"""`moorage ssh-config`: lets plain ssh, scp and rsync know runs by their names."""

from __future__ import annotations

from pathlib import Path

import click

from moorage.cli import sshfiles
from moorage.cli.render import say
from moorage.cli.session import connect


@click.command("ssh-config")
@click.option("--install", is_flag=True, help="Add the line to ~/.ssh/config, once.")
def ssh_config(install: bool) -> None:
    """Let ssh, scp and rsync know runs by name.

    Writes the settings of all runs that are there to `ssh/config` in MOORAGE_HOME, which one line
    in your ~/.ssh/config includes (of the account's home, which is where ssh looks, whatever HOME
    says). Run it again when new runs are there.

    \b
    Examples:
      moorage ssh-config --install
      scp big.h5 train:data/
      rsync -avz src/ train:src/
    """
    with connect() as client:
        sshfiles.public_key(client.home)
        entries = sshfiles.write_config(client)
        path = sshfiles.directory(client.home) / sshfiles.CONFIG
        own = sshfiles.own_config()
        added = install and sshfiles.install(client.home, own)
    if not install:
        click.echo(f"# put this first in {own} (--install does):\nInclude {path}")
    elif added:
        click.echo(f"{own} includes {path} now")
    if own.resolve() != (other := Path("~/.ssh/config").expanduser()).resolve():
        say(f"note: ssh reads {own}, of the account's home, and not {other}, of HOME")
    names = " ".join(entry.name for entry in entries)
    click.echo(f"# known at present: {names or 'no run'}")
