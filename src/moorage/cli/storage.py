"""`moorage storage`: buckets that runs use, and what is in them."""

from __future__ import annotations

import click

from moorage.cli.storage_cp import copy, sync
from moorage.cli.storage_du import usage


@click.group()
def storage() -> None:
    """Buckets that runs use, and what is in them.

    \b
    Examples:
      moorage storage cp ./data s3://bucket/data
      moorage storage sync --delete s3://bucket/data ./data
      moorage storage du s3://bucket/data
    """


storage.add_command(copy)
storage.add_command(sync)
storage.add_command(usage)
