"""`moorage storage cleanup`: parts of uploads that nobody finished."""

from __future__ import annotations

import time

import click
from msgspec import Struct

from moorage.cli.render import age, printable, say
from moorage.cli.session import connect, json_option, print_json, seconds
from moorage.errors import InvalidInput, NotFound, Problem, Unavailable
from moorage.protocol.stores import Unfinished
from moorage.units import format_size, parse_duration

LEFT = "1d"
"""Time for which one that was begun may still be under way."""


def unfinished(found: Unfinished | None, place: str, now: float) -> str:
    """What to say of such uploads; empty where there are none."""
    if found is None:
        return ""
    many = "1 unfinished upload" if found.uploads == 1 else f"{found.uploads} unfinished uploads"
    size = "" if found.bytes is None else f", {format_size(found.bytes)}"
    oldest = f"begun {age(found.oldest, now)}"
    oldest = oldest if found.uploads == 1 else f"the oldest {oldest}"
    command = f"moorage storage cleanup {place}"
    if now - found.oldest < parse_duration(LEFT):
        return f"{many}{size}, {oldest}, perhaps under way; {command} --older-than TIME"
    return f"{many}{size}, {oldest}; {command}"


class Cleaned(Struct, frozen=True):
    """The result for programs."""

    place: str
    removed: list[str]
    """Addresses of the objects that were to be."""
    kept: int
    """Younger ones."""
    dry_run: bool


@click.command("cleanup")
@click.argument("place", metavar="PLACE")
@click.option(
    "--older-than", metavar="TIME", default=LEFT, show_default=True,
    help="Leave what was begun later: it may be under way, also by others.",
)  # fmt: skip
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be removed.")
@json_option
def cleanup(place: str, older_than: str, dry_run: bool, as_json: bool) -> None:
    """Remove what uploads have left that nobody finished.

    PLACE is a bucket or a path in one. Stores that speak S3 keep the parts of such uploads, and
    bill them, until a rule of the bucket says otherwise, and no listing shows them. What moorage
    could not finish it removes itself, unless it was killed.

    \b
    Examples:
      moorage storage cleanup s3://bucket
      moorage storage cleanup my-outputs --older-than 1h --dry-run
    """
    from moorage.cli.places import name_hint, place_of
    from moorage.data.transfer.places import Local

    age_least = seconds(older_than, "--older-than")
    with connect() as client:
        where = place_of(client, place, "PLACE")
        if isinstance(where, Local):
            if hint := name_hint(client, place):
                raise NotFound(hint)
            fix = "write s3://BUCKET/PATH or a name"
            raise InvalidInput(Problem(f"{place} is no bucket", fix))
    uploads = where.bucket.uploads
    if not uploads.known:
        keyless = "no access key is at hand; declare the store with one, or give the bucket a rule"
        said = keyless if uploads.kept else "this store removes unfinished uploads by itself"
        raise Unavailable(f"{where.shown}: {said}")
    found = uploads.below(where.path)
    now = time.time()
    old = [one for one in found if one.began <= now - age_least]
    for one in old:
        if not dry_run:
            uploads.abort(one)
        if not as_json:
            click.echo(printable(f"{where.bucket.at(one.key)}, begun {age(one.began, now)}"))
    kept = len(found) - len(old)
    if as_json:
        names = [where.bucket.at(one.key) for one in old]
        print_json(Cleaned(where.shown, names, kept, dry_run))
        return
    told = f"{len(old)} unfinished {'upload' if len(old) == 1 else 'uploads'}"
    told += " would be removed" if dry_run else " removed"
    say(told + (f", {kept} begun later stay" if kept else ""))
