"""`moorage server backup` and `restore`: all that a server knows, in one file and back."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import click

from moorage.cli import offline
from moorage.cli.home import home_directory
from moorage.cli.lasting import Gauge, before_bytes
from moorage.cli.session import connect, json_option, print_json
from moorage.errors import InvalidInput, MoorageError, Problem, Unreachable
from moorage.protocol.api import Progress, RestoreReply
from moorage.units import format_size

_OPEN = "/proc/self/fd"
_SILENCE = 60.0
"""Seconds without a byte after which a backup is given up."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> None:
    """Write all that the server knows to FILE, while it goes on working.

    Runs, events and uploaded content, as of one moment; not the output of jobs, which is on their
    nodes, not config.yml, no tokens, and not the key of the stores' secrets (server/secrets.key).
    An existing FILE is refused.

    \b
    Examples:
      moorage server backup /backup/moorage-$(date +%F).tar
      moorage server restore /backup/moorage-2026-11-21.tar
    """
    _require_absent(file)
    query = {"progress": True}
    with (
        _saying_that_there_is_none(),
        connect() as client,
        client.transport.stream("/v1/backup", query=query, patience=_SILENCE) as stream,
        Gauge("backing up") as gauge,
    ):
        total, chunks = before_bytes(stream, gauge.show)
        with _beside(file) as target:
            written = _copy(chunks, target, total, gauge)
    click.echo(f"{file}: {format_size(written)}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--database",
    default="",
    metavar="URL",
    help="Where it goes: sqlite, or a PostgreSQL that is empty (default: as of server start).",
)
@json_option
def restore(file: Path, database: str, as_json: bool) -> None:
    """Make the store of this home from a backup; one that is not empty is refused.

    The file is verified first. Jobs that were queued then start again, those that ran are asked
    for at their nodes; what happened after the backup is not known. Numbers go on far above.

    \b
    Examples:
      MOORAGE_HOME=~/restored moorage server restore /backup/moorage-2026-11-21.tar
      moorage server restore backup.tar --database postgresql://db.example/moorage
    """
    home = home_directory()
    offline.require_stopped(home, "nothing is restored")
    options = ["--file", str(file.absolute()), f"--database={database}"]
    with Gauge("restoring") as gauge:
        reply = offline.call(home, "restore", RestoreReply, gauge.show, *options)
    if as_json:
        print_json(reply)
        return
    then = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(reply.created_at))
    click.echo(f"restored {reply.runs} runs and {reply.packs} packs of content as of {then}")
    click.echo(f"the next run is number {reply.next_run}; start: moorage server start")


@contextmanager
def _saying_that_there_is_none() -> Iterator[None]:
    try:
        yield
    except Unreachable as error:
        raise Unreachable(f"no backup was written: {error}") from None


def _require_absent(file: Path) -> None:
    if os.path.lexists(file):
        raise InvalidInput(Problem("exists already; nothing is overwritten", file=str(file)))
    if not file.absolute().parent.is_dir():
        raise InvalidInput(Problem("its directory does not exist", file=str(file)))


@contextmanager
def _beside(file: Path) -> Iterator[BinaryIO]:
    """A file that has its name only once it is complete and durable."""
    partial: Path | None = None
    try:
        descriptor, partial = _opened(file)
        with open(descriptor, "wb") as target:
            yield target
            target.flush()
            os.fsync(descriptor)
            _name(f"{_OPEN}/{descriptor}" if partial is None else str(partial), file)
    except OSError as error:
        raise MoorageError(f"{file} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            if partial is not None:
                partial.unlink(missing_ok=True)


def _opened(file: Path) -> tuple[int, Path | None]:
    """Without any name, so that nothing is left of it however this process ends; where the
    filesystem has no such files, with that of a hidden one."""
    with suppress(OSError):
        if os.access(_OPEN, os.R_OK):
            return os.open(file.absolute().parent, os.O_TMPFILE | os.O_WRONLY, 0o600), None
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    return os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), partial


def _name(made: str, file: Path) -> None:
    directory = os.open(file.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Unlike a rename, never over a file that came meanwhile. With a directory given, links
        # such as those in /proc are followed.
        os.link(made, file.absolute(), src_dir_fd=directory, follow_symlinks=True)
    except FileExistsError:
        raise MoorageError(f"{file} exists by now; nothing is overwritten") from None
    except OSError:
        if made.startswith(_OPEN):
            raise
        Path(made).rename(file)  # a filesystem without hard links
    finally:
        os.fsync(directory)
        os.close(directory)


def _copy(chunks: Iterable[bytes], target: BinaryIO, total: int, gauge: Gauge) -> int:
    written = 0
    for chunk in chunks:
        target.write(chunk)
        written += len(chunk)
        gauge.show(Progress("content", written, max(written, total)))
    return written
