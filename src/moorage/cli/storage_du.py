"""`moorage storage du`: how much lies somewhere."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from pathlib import Path

import click
from msgspec import Struct

from moorage.cli.render import printable, say, style_of, table
from moorage.cli.session import connect, json_option, print_json, print_lines
from moorage.cli.storage_cleanup import unfinished
from moorage.errors import NotFound
from moorage.protocol.stores import Unfinished
from moorage.units import format_size


class Amount(Struct, frozen=True):
    """Objects below one name, for programs."""

    name: str
    objects: int
    bytes: int


class Usage(Struct, frozen=True, omit_defaults=True):
    """The result for programs."""

    place: str
    objects: int
    bytes: int
    parts: list[Amount]
    unfinished: Unfinished | None = None
    """Uploads in parts, which are no objects."""


@click.command("du")
@click.argument("place", metavar="PLACE")
@json_option
def usage(place: str, as_json: bool) -> None:
    """Count objects and bytes of a bucket or of a path in one, by first names.

    \b
    Examples:
      moorage storage du s3://bucket/data
      moorage storage du my-outputs
    """
    from moorage.cli.places import interruptible, name_hint, place_of
    from moorage.data.objects.leftovers import leftovers
    from moorage.data.transfer.listing import listing
    from moorage.data.transfer.places import Local, Remote

    with connect() as client:
        where = place_of(client, place, "PLACE")
        gone = isinstance(where, Local) and not Path(where.path).exists()
        if gone and (hint := name_hint(client, place)):
            raise NotFound(f"{hint}; nor is it a path here")
    found = interruptible(lambda: listing(where))
    counted: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for entry in found.entries.values():
        first, slash, _ = entry.name.partition("/")
        amount = counted[first + slash]
        amount[0] += 1
        amount[1] += entry.size
    parts = [Amount(name, *numbers) for name, numbers in sorted(counted.items())]
    left = leftovers(where.bucket.uploads, where.path) if isinstance(where, Remote) else None
    if as_json:
        print_json(Usage(where.shown, len(found.entries), found.size, parts, left))
        return
    rows = [
        (printable(part.name or where.shown), str(part.objects), format_size(part.bytes))
        for part in parts
    ]
    rows.append(("total", str(len(found.entries)), format_size(found.size)))
    print_lines(table(("NAME", "OBJECTS", "SIZE"), rows, style_of(sys.stdout)))
    if left is not None:
        say(printable(unfinished(left, place, time.time())))
