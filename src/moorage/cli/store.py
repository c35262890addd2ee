"""`moorage store`: the object stores that buckets are in."""

from __future__ import annotations

import click

from moorage.cli.groups import Commands
from moorage.cli.store_add import add
from moorage.cli.store_list import check, delete, list_stores, show
from moorage.cli.store_process import start, status, stop


@click.group(cls=Commands)
def store() -> None:
    """The object stores that buckets are in.

    What is declared here can be written in files as `store: NAME` and NAME://BUCKET/PATH. Without
    any, buckets are in moorage's own store, and s3://, gs:// and others take the credentials that
    the server finds, or else those of the node.

    \b
    Examples:
      moorage store add lab --type s3 --endpoint https://minio.lab:9000 --access-key-id ada
      moorage store check lab
      moorage store ls
    """


for command in (add, list_stores, show, check, delete, start, stop, status):
    store.add_command(command)
