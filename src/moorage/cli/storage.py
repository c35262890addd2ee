"""`moorage storage`: buckets that runs use, and what is in them."""

from __future__ import annotations

import click

from moorage.cli.groups import Commands
from moorage.cli.storage_cleanup import cleanup
from moorage.cli.storage_cp import copy, sync
from moorage.cli.storage_create import create
from moorage.cli.storage_delete import delete
from moorage.cli.storage_du import usage
from moorage.cli.storage_flush import flush
from moorage.cli.storage_list import adopt, list_storages, show


@click.group(cls=Commands)
def storage() -> None:
    """Buckets that runs use, and what is in them.

    \b
    Examples:
      moorage storage ls --check
      moorage storage cp ./data s3://bucket/data
      moorage storage sync --delete s3://bucket/data ./data
      moorage storage du s3://bucket/data
    """


for command in (list_storages, show, create, adopt, delete, flush, copy, sync, usage, cleanup):
    storage.add_command(command)
