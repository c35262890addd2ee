"""`moorage server migrate-store`: another database for the same server."""

from __future__ import annotations

import os
import sys

import click

from moorage.cli.home import home_directory


@click.command("migrate-store")
@click.option(
    "--from", "source", default="", metavar="DATABASE",
    help="Where it is: sqlite, or a PostgreSQL URL (default: what this server uses).",
)  # fmt: skip
@click.option(
    "--to", "target", default="", metavar="DATABASE",
    help="Where it is to go (default: $MOORAGE_DATABASE).",
)  # fmt: skip
def migrate_store(source: str, target: str) -> None:
    """Move everything the server keeps to another database, and verify it.

    Runs, events, tokens and uploaded content go from SQLite to PostgreSQL, or back. Stop the
    server first; its jobs go on. The new database must be empty. It gets all or nothing, and
    the old one is left as it is. A password does not belong into a URL here: use ~/.pgpass,
    PGPASSWORD or $MOORAGE_DATABASE.

    \b
    Examples:
      moorage server migrate-store --to postgresql://db.example/moorage
      moorage server migrate-store --to sqlite
    """
    command = [sys.executable, "-P", "-X", "utf8", "-m", "moorage.server.moving"]
    command += ["--home", str(home_directory()), f"--from={source}", f"--to={target}"]
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606 - no shell, which is the point
