"""`moorage server backup` and `restore`: all that a server knows, in one file and back."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import click

from moorage.cli import offline
from moorage.cli.home import home_directory
from moorage.cli.session import connect, json_option, print_json
from moorage.errors import InvalidInput, MoorageError, Problem
from moorage.protocol.api import RestoreReply
from moorage.units import format_size

SIZE_HEADER = "Moorage-Backup-Size"
_SHOWN_EVERY = 0.2


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> None:
    """Write all that the server knows to FILE, while it goes on working.

    Runs, events and uploaded content, as of one moment; not the output of jobs, which is on their
    nodes, not config.yml, and no tokens. An existing FILE is refused.

    \b
    Examples:
      moorage server backup /backup/moorage-$(date +%F).tar
      moorage server restore /backup/moorage-2026-11-21.tar
    """
    _require_absent(file)
    with connect() as client, client.transport.stream("/v1/backup") as stream:
        total = int(stream.header(SIZE_HEADER) or 0)
        with _beside(file) as target:
            written = _copy(stream, target, total)
    click.echo(f"{file}: {format_size(written)}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def restore(file: Path, as_json: bool) -> None:
    """Make the store of this home from a backup; a home that has one is refused.

    The file is verified first. Jobs that were queued then start again, those that ran are asked
    for at their nodes; what happened after the backup is not known. Numbers go on far above.

    \b
    Example:
      MOORAGE_HOME=~/restored moorage server restore /backup/moorage-2026-11-21.tar
    """
    home = home_directory()
    offline.require_stopped(home, "nothing is restored")
    reply = offline.call(home, "restore", RestoreReply, "--file", str(file.absolute()))
    if as_json:
        print_json(reply)
        return
    then = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(reply.created_at))
    click.echo(f"restored {reply.runs} runs and {reply.packs} packs of content as of {then}")
    click.echo(f"the next run is number {reply.next_run}; start: moorage server start")


def _require_absent(file: Path) -> None:
    if os.path.lexists(file):
        raise InvalidInput(Problem("exists already; nothing is overwritten", file=str(file)))
    if not file.absolute().parent.is_dir():
        raise InvalidInput(Problem("its directory does not exist", file=str(file)))


@contextmanager
def _beside(file: Path) -> Iterator[BinaryIO]:
    """A file that has its name only once it is complete and durable."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as target:
            yield target
            target.flush()
            os.fsync(descriptor)
        _name(partial, file)
    except OSError as error:
        raise MoorageError(f"{file} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _name(partial: Path, file: Path) -> None:
    try:
        os.link(partial, file)  # unlike a rename, never over a file that came meanwhile
    except FileExistsError:
        raise MoorageError(f"{file} exists by now; nothing is overwritten") from None
    except OSError:
        partial.rename(file)  # a filesystem without hard links
    directory = os.open(file.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _copy(chunks: Iterable[bytes], target: BinaryIO, total: int) -> int:
    written, shown = 0, 0.0
    tells = sys.stderr.isatty()
    for chunk in chunks:
        target.write(chunk)
        written += len(chunk)
        if tells and time.monotonic() > shown + _SHOWN_EVERY:
            shown = time.monotonic()
            share = min(99, 100 * written // max(1, total))
            sys.stderr.write(f"\r{share:3}%  {format_size(written):>8} ")
            sys.stderr.flush()
    if tells:
        sys.stderr.write("\r\x1b[K")
    return written
