"""`moorage storage du`: how much lies somewhere."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from moorage.cli.render import printable, say, style_of, table
from moorage.cli.session import connect, json_option, print_json, print_lines
from moorage.errors import NotFound
from moorage.units import format_size

if TYPE_CHECKING:
    from moorage.data.transfer.places import Remote


class Amount(Struct, frozen=True):
    """Objects below one name, for programs."""

    name: str
    objects: int
    bytes: int


class Usage(Struct, frozen=True):
    """The result for programs."""

    place: str
    objects: int
    bytes: int
    parts: list[Amount]


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
    if as_json:
        print_json(Usage(where.shown, len(found.entries), found.size, parts))
        return
    rows = [
        (printable(part.name or where.shown), str(part.objects), format_size(part.bytes))
        for part in parts
    ]
    rows.append(("total", str(len(found.entries)), format_size(found.size)))
    print_lines(table(("NAME", "OBJECTS", "SIZE"), rows, style_of(sys.stdout)))
    if isinstance(where, Remote) and (more := _unfinished(where)):
        many = "1 upload was" if more == 1 else f"{more} uploads were"
        say(f"{many} never finished; what came takes room; moorage storage cleanup {place}")


def _unfinished(where: Remote) -> int:
    """How many uploads in parts no listing shows; 0 also where the store does not tell."""
    from moorage.data.objects.errors import StoreProblem

    uploads = where.bucket.uploads
    try:
        return len(uploads.below(where.path)) if uploads.known else 0
    except StoreProblem:
        return 0
