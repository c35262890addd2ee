"""Moves a server's store to another database: `python -m moorage.server.moving`, which
`moorage server migrate-store` runs."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from moorage.errors import InvalidInput, MoorageError, Problem
from moorage.server import database, notes, settings
from moorage.store.base import StoreBroken
from moorage.store.transfer import End, Moved, transfer
from moorage.units import format_size

_REDRAW = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Move all and say what was moved; the exit code."""
    parser = argparse.ArgumentParser(
        prog="moorage.server.moving", description="Move a server's store to another database."
    )
    parser.add_argument("--home", help="where everything is kept (default: $MOORAGE_HOME)")
    parser.add_argument("--from", dest="source", default="", help="default: what is used now")
    parser.add_argument("--to", dest="target", default="", help="default: $MOORAGE_DATABASE")
    given = parser.parse_args(arguments)
    notes.tell(sys.stderr.fileno(), "moorage: ")
    try:
        for line in move(settings.home_directory(given.home), given.source, given.target):
            print(line)
    except MoorageError as error:
        print(f"moorage: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def move(home: Path, given_source: str, given_target: str) -> list[str]:
    """Move the store of a home; what to tell the user. The next server of this home uses the new
    one. InvalidInput where an end cannot be used, with the remedy; then nothing has changed."""
    configured = settings.load(home).database
    with _naming("--from"):
        source = database.choose(given_source, {}, "", home)
    with _naming("--to"):
        target = database.choose(given_target, os.environ, configured, home)
    if source == target:
        raise InvalidInput(
            Problem(
                f"the store is in {database.shown(source)} already",
                "say where it is to go, or where it comes from with --from",
                "--to",
            )
        )
    with closing(opened(home, source, must_exist=True)) as old:
        with closing(opened(home, target)) as new, _Line() as line:
            moved = transfer(old, new, line.show)
        database.remember(home, target)
    return _report(moved, source, target, configured)


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Says our own option's name where the server's is meant."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(
            *(
                problem._replace(
                    field=problem.field.replace("--database", option),
                    message=problem.message.replace("--database", option),
                )
                for problem in error.problems
            )
        ) from None


def opened(home: Path, chosen: str, *, must_exist: bool = False) -> End:
    """A database as an end of a transfer. InvalidInput, with the remedy, where it cannot be."""
    try:
        if chosen == database.SQLITE:
            from moorage.store.transfer_sqlite import SqliteEnd

            directory = settings.make_private(home) / "server"
            if must_exist and not (directory / "moorage.db").exists():
                raise InvalidInput(
                    Problem(f"there is no store in {directory}", "set MOORAGE_HOME", "--from")
                )
            return SqliteEnd(settings.make_private(directory))
        from moorage.store.postgres import require_driver

        require_driver()
        from moorage.store.transfer_postgres import PostgresEnd

        return PostgresEnd(chosen)
    except StoreBroken as error:
        raise InvalidInput(str(error)) from error


def _report(moved: Moved, source: str, target: str, configured: str) -> list[str]:
    rows = sum(moved.rows.values())
    counts = ", ".join(
        f"{moved.rows[table]} {table}" for table in ("runs", "jobs", "events", "blobs")
    )
    lines = [
        f"moved and verified: {rows} rows of {len(moved.rows)} tables ({counts}), "
        f"{moved.packs} packs of content, {format_size(moved.bytes)}",
        f"from {database.shown(source)}, which was left as it is, to {database.shown(target)}",
    ]
    said = os.environ.get(database.VARIABLE) or configured
    if said and said != target:
        lines.append(
            f"${database.VARIABLE} or config.yml still names another database: change that before "
            "the next start"
        )
    else:
        lines.append("the next start uses it: moorage server start")
    return lines


class _Line:
    """Shows on a terminal how far it is; silent in a pipe. The line is gone at the end."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._drawn = 0.0

    def show(self, what: str, done: int, total: int) -> None:
        """See `transfer.Tell`."""
        now = time.monotonic()
        if self._shown and now - self._drawn >= _REDRAW:
            self._drawn = now
            amount = (
                f"{format_size(done)} of {format_size(total)}"
                if what == "content"
                else f"{done} of {total} rows"
            )
            sys.stderr.write(f"\r\x1b[Kmoving {what}: {amount}")
            sys.stderr.flush()

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
