"""What is done to a server's files while no server runs: `python -m moorage.server.offline`.

The command starts it, because only this side knows the store. Prints one JSON document, or, for
an error, one line on standard error.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from moorage.errors import InvalidInput, MoorageError, Problem
from moorage.protocol.api import CheckReply, Finding, RestoreReply
from moorage.server.checkup import Checked, check_store
from moorage.server.database import SQLITE, remember
from moorage.server.settings import make_private
from moorage.store import sql
from moorage.store.base import StatementRefused
from moorage.store.blobs import Blobs
from moorage.store.restore import restore
from moorage.store.sqlite import SqliteStore, examine_sqlite
from moorage.store.writer import Writer

_ROUNDS = 3
"""An end that is repaired may show another rule broken: the run of the job, for instance."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the first argument says; the exit code of an error, else 0."""
    parser = argparse.ArgumentParser(prog="moorage.server.offline")
    parser.add_argument("what", choices=("check", "repair", "restore"))
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--deep", action="store_true")
    parser.add_argument("--file", type=Path)
    given = parser.parse_args(arguments)
    try:
        if given.what == "restore":
            reply: object = _restore(given.home, given.file)
        else:
            reply = _check(given.home / "server", given.what == "repair", deep=given.deep)
    except InvalidInput as error:
        print("\n".join(map(str, error.problems)), file=sys.stderr)
        return error.exit_code
    except (MoorageError, OSError) as error:
        print(error, file=sys.stderr)
        return getattr(error, "exit_code", 1)
    sys.stdout.buffer.write(msgspec.json.encode(reply))
    return 0


def _check(directory: Path, repair: bool, *, deep: bool) -> CheckReply:
    store = examine_sqlite(directory / "moorage.db")
    try:
        if (other := _other_schema(store)) is not None:
            return CheckReply([other], {}, deep)
        writer = Writer(store)
        try:
            blobs = Blobs(directory, store, writer)
            checked = check_store(store, blobs, time.time(), deep=deep)
            if repair:
                return _repair(store, blobs, checked)
            return checked.reply
        finally:
            writer.close()
    finally:
        store.close()


def _other_schema(store: SqliteStore) -> Finding | None:
    """Tables of another version cannot be judged by the rules of this one."""
    known = len(sql.migrations())
    try:
        rows = store.read("meta", {"key": "schema_version"})
    except (MoorageError, StatementRefused):
        return None  # damaged: the check says how
    version = int(rows[0]["value"]) if rows and rows[0]["value"].isdecimal() else 0
    if version == known:
        return None
    told = f"the database has schema {version}, this moorage knows {known}"
    if version < known:
        return Finding(told, "start the server once, which brings it up to date; then check again")
    return Finding(told, "install the newer version again")


def _repair(store: SqliteStore, blobs: Blobs, checked: Checked) -> CheckReply:
    """Repair what is mechanical, after a copy of the database; what is then still wrong."""
    deep = checked.reply.deep
    if not any(one.finding.repairable for one in checked.found) and store.file.can_shrink():
        return checked.reply
    path = store.file.path
    stamp = time.strftime("%Y%m%d-%H%M%S")
    store.file.snapshot(path.with_name(f"{path.name}.before-repair-{stamp}"))
    for _ in range(_ROUNDS):
        if not any(one.finding.repairable for one in checked.found):
            break
        store.file.reindex()
        store.write([statement for one in checked.found for statement in one.repair])
        checked = check_store(store, blobs, time.time(), deep=deep)
    if not store.file.can_shrink():
        store.file.convert()
    return checked.reply


def _restore(home: Path, file: Path | None) -> RestoreReply:
    if file is None or not file.is_file():
        raise InvalidInput(Problem("there is no such file", file=str(file)))
    make_private(home)
    found = restore(file, make_private(home / "server"), time.time())
    remember(home, SQLITE)
    return RestoreReply(
        created_at=found.manifest.created_at,
        version=found.manifest.version,
        runs=found.runs,
        packs=len(found.manifest.packs),
        next_run=found.first_run,
    )


if __name__ == "__main__":
    sys.exit(main())
