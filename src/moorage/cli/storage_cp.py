"""`moorage storage cp` and `sync`: files between here and buckets, and between buckets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from moorage.cli.client import Client
from moorage.cli.ending import ended_by_signals
from moorage.cli.render import printable, say
from moorage.cli.session import asks, confirm, connect, json_option, print_json
from moorage.errors import InvalidInput, Problem
from moorage.units import format_duration, format_size

if TYPE_CHECKING:
    from moorage.data.transfer.compare import Options, Plan
    from moorage.data.transfer.engine import Report
    from moorage.data.transfer.places import Place, Remote


class Moved(Struct, frozen=True):
    """The result for programs."""

    source: str
    target: str
    files: int
    bytes: int
    unchanged: int
    deleted: int
    links_skipped: int
    seconds: float
    problems: list[str]
    dry_run: bool = False
    others_skipped: int = 0
    """Pipes, sockets and devices."""


checksum_option = click.option(
    "-c", "--checksum", is_flag=True, help="Compare content, not sizes and times."
)
dry_option = click.option("-n", "--dry-run", is_flag=True, help="Only say what would be moved.")
ignore_option = click.option(
    "--no-ignore", is_flag=True, help="Upload also what .moorageignore or .gitignore names."
)


@click.command("cp")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("-f", "--force", is_flag=True, help="Move also what is there already.")
@checksum_option
@dry_option
@ignore_option
@json_option
def copy(
    source: str, target: str, force: bool, checksum: bool, dry_run: bool, no_ignore: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Copy a file or an object, or all below a directory or a prefix.

    SRC and DST are paths, addresses of a store (s3://BUCKET/PATH, STORE://BUCKET/PATH) or names of
    storages (NAME/PATH). The content of a directory lands in DST; a single file lands in DST where
    that is a directory or ends with a slash, else under that name. Begin again after an
    interruption: only what is missing is moved. Nothing is deleted. Links are left out.

    \b
    Examples:
      moorage storage cp ./data s3://bucket/data
      moorage storage cp s3://bucket/model.pt .
      moorage storage cp s3://bucket/set gs://other/set
    """
    from moorage.data.transfer.compare import Options

    options = Options(checksum=checksum, everything=force, ignoring=not no_ignore)
    with ended_by_signals(), connect() as client:
        return run(client, source, target, options, dry_run=dry_run, as_json=as_json, cp=True)


@click.command("sync")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--delete", is_flag=True, help="Delete in DST what SRC does not have.")
@click.option(
    "-y", "--yes", is_flag=True, help="Delete also where DST has nothing of SRC, and do not ask."
)
@checksum_option
@dry_option
@ignore_option
@json_option
def sync(
    source: str, target: str, delete: bool, yes: bool, checksum: bool, dry_run: bool,
    no_ignore: bool, as_json: bool,
) -> int:  # fmt: skip
    """Make a directory or prefix have what another has.

    Only what differs is moved, by size and time. With --delete the rest of DST goes, when
    everything has been moved; not what the ignore files of SRC name. Where DST has nothing that
    SRC has, it may be the wrong place, and --yes is needed.

    \b
    Examples:
      moorage storage sync ./data s3://bucket/data
      moorage storage sync --delete --dry-run s3://bucket/data ./data
    """
    from moorage.data.transfer.compare import Options

    options = Options(checksum=checksum, delete=delete, ignoring=not no_ignore)
    with ended_by_signals(), connect() as client:
        return run(client, source, target, options, dry_run=dry_run, as_json=as_json, yes=yes)


def run(
    client: Client,
    source: str,
    target: str,
    options: Options,
    *,
    dry_run: bool,
    as_json: bool,
    cp: bool = False,
    yes: bool = False,
) -> int:
    """Compare, move, and tell; the exit code."""
    from functools import partial

    from moorage.cli.places import interruptible, place_of, shown_progress
    from moorage.data.transfer.compare import compare
    from moorage.data.transfer.engine import carry_out
    from moorage.data.transfer.places import Remote

    here, there = place_of(client, source, "SRC"), place_of(client, target, "DST")
    _require_remote(client, here, there, (source, target))
    if cp or target.endswith("/") or (isinstance(there, Remote) and not there.path):
        there = interruptible(partial(_named, here, there, target))
    here = _itself(here) if cp else here
    _require_writable(there)
    _require_apart(here, there)
    plan = interruptible(partial(compare, here, there, options))
    if dry_run:
        _tell_plan(plan, as_json)
        return 1 if plan.problems else 0
    if not (yes or _is_meant(plan)):
        say("nothing was changed")
        return 1
    try:
        buckets = [one.bucket for one in (here, there) if isinstance(one, Remote)]
        with shown_progress("copying" if cp else "syncing", buckets) as tell:
            report = carry_out(plan, tell)
    finally:
        _tell_left(there)
    _tell(plan, report, as_json)
    return 1 if report.problems else 0


def _is_meant(plan: Plan) -> bool:
    """Asks where somebody can answer; else InvalidInput where it may be a slip."""
    reason = _slip(plan)
    if reason and not asks():
        raise InvalidInput(Problem(reason, "look with --dry-run, then add --yes"))
    return not reason or confirm(f"{printable(reason)}. Delete?")


def _slip(plan: Plan) -> str:
    """A mirror onto a place that has nothing of its source: why it may be the wrong one."""
    if not plan.deletions or plan.unchanged or plan.replaced:
        return ""
    many = _count(len(plan.deletions), "file")
    return f"nothing of {plan.source.shown} is in {plan.target.shown}, where {many} would go"


def _tell_left(there: Place) -> None:
    """Of what was begun and could not be removed again: it costs money, and nobody sees it."""
    from moorage.data.transfer.places import Remote

    if isinstance(there, Remote) and there.bucket.sending.left:
        place = there.bucket.shown
        say(f"parts of what was sent may be left in {place}; moorage storage cleanup {place}")


def _require_remote(client: Client, here: Place, there: Place, written: tuple[str, str]) -> None:
    from moorage.cli.places import name_hint
    from moorage.data.transfer.places import Local

    if not (isinstance(here, Local) and isinstance(there, Local)):
        return
    # What is not here was meant to be elsewhere.
    meant = written[::-1] if os.path.lexists(here.path) else written
    hint = next(filter(None, (name_hint(client, text) for text in meant)), "")
    if hint:
        raise InvalidInput(Problem(hint, "or write an address such as s3://BUCKET/PATH"))
    fix = "write s3://BUCKET/PATH, or a name of moorage storage ls; for files here use cp"
    raise InvalidInput(Problem("both SRC and DST are on this machine", fix))


def _require_writable(there: Place) -> None:
    from moorage.data.transfer.places import Remote
    from moorage.specs.stores import registry

    kind = registry.kind(there.bucket.access.kind) if isinstance(there, Remote) else None
    if kind is not None and kind.read_only:
        raise InvalidInput(Problem(f"{kind.title} can only be read", "name another place", "DST"))


def _require_apart(here: Place, there: Place) -> None:
    """One below the other, every copy would be copied again, and `--delete` delete the source."""
    from moorage.data.transfer.places import Remote

    if not isinstance(here, Remote) or not isinstance(there, Remote):
        return
    if _which(here) != _which(there):
        return
    one, other = (f"{place.path}/" if place.path else "" for place in (here, there))
    if one == other or one.startswith(other) or other.startswith(one):
        reason = f"{here.shown} and {there.shown} lie in each other"
        raise InvalidInput(Problem(reason, "choose a place beside the other"))


def _which(place: Remote) -> tuple[str, ...]:
    """The bucket, whatever name its store has here."""
    access, name = place.bucket.access, place.bucket.name
    if access.endpoint:
        return access.endpoint.rstrip("/"), access.account, name
    return access.kind, access.region, access.account, name


def _itself(place: Place) -> Place:
    """What a link that is named on the command line leads to."""
    from moorage.data.transfer.places import Local

    if isinstance(place, Local) and os.path.islink(place.path):  # noqa: PTH114
        return Local(os.path.realpath(place.path))  # of keys, too
    return place


def _named(here: Place, there: Place, written: str) -> Place:
    """Where a single file goes: into a directory, under its own name."""
    from msgspec.structs import replace

    from moorage.data.transfer.listing import is_object
    from moorage.data.transfer.places import Local, Remote

    name = os.path.basename(here.path)  # noqa: PTH119  # of keys, too
    if isinstance(there, Local):
        into = os.path.isdir(there.path) or written.endswith("/")  # noqa: PTH112
        if into and isinstance(here, Remote) and is_object(here):
            return Local(f"{there.path}/{name}")
        return there
    into = not there.path or written.endswith("/")
    single = os.path.isfile(here.path) if isinstance(here, Local) else is_object(here)  # noqa: PTH113
    if into and single:
        return replace(there, path=there.at(name))
    return there


def _tell_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json(
            Moved(
                plan.source.shown, plan.target.shown, len(plan.moves), plan.size, plan.unchanged,
                len(plan.deletions), plan.links, 0.0, [str(one) for one in plan.problems], True,
                plan.others,
            )
        )  # fmt: skip
        return
    for entry in plan.moves:
        click.echo(printable(f"copy {entry.name or plan.source.shown}, {format_size(entry.size)}"))
    for name in plan.deletions:
        click.echo(printable(f"delete {name}"))
    for problem in plan.problems:
        say(f"cannot: {printable(str(problem))}")
    if reason := _slip(plan):
        say(f"warning: {printable(reason)}")
    parts = [f"{_count(len(plan.moves), 'file')}, {format_size(plan.size)} to copy"]
    parts += [f"{len(plan.deletions)} to delete"] if plan.deletions else []
    say(", ".join([*parts, f"{plan.unchanged} unchanged", *_left_out(plan.links, plan.others)]))


def _tell(plan: Plan, report: Report, as_json: bool) -> None:
    if as_json:
        print_json(
            Moved(
                plan.source.shown, plan.target.shown, report.files, report.bytes,
                report.unchanged, report.deleted, report.links, round(report.seconds, 3),
                [str(problem) for problem in report.problems], False, report.others,
            )
        )  # fmt: skip
        return
    for problem in report.problems:
        say(f"error: {printable(str(problem))}")
    parts = [f"{_count(report.files, 'file')}, {format_size(report.bytes)}"]
    if report.files:
        parts.append(f"in {format_duration(report.seconds)}")
    parts.append(f"{report.unchanged} unchanged")
    if report.deleted:
        parts.append(f"{report.deleted} deleted")
    parts += _left_out(report.links, report.others)
    if report.problems:
        parts.append(f"{len(report.problems)} not copied")
    say(", ".join(parts))


def _left_out(links: int, others: int) -> list[str]:
    counted = ((links, "link"), (others, "special file"))
    return [f"{_count(number, noun)} left out" for number, noun in counted if number]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
