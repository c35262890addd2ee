"""What is done to a server's store while no server runs: `python -m moorage.server.offline`.

The command starts it, because only this side knows the store. Prints lines of JSON (`Told`), the
last with the reply, or, for an error, one line on standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from moorage.errors import InvalidInput, MoorageError, Problem
from moorage.protocol.api import CheckReply, Finding, Progress, RestoreReply, Told
from moorage.server import database, moving, notes, settings
from moorage.server.checkup import Checked, check_store
from moorage.server.snapshots import snapshot_of
from moorage.store import sql
from moorage.store.base import StatementRefused, Store
from moorage.store.blobs import Blobs
from moorage.store.packs import Packs
from moorage.store.restore import restore, restore_into
from moorage.store.sqlite import SqliteStore, examine_sqlite
from moorage.store.workspace import workspace
from moorage.store.writer import Writer

_SAY_EVERY = 0.2
_ROUNDS = 3
"""An end that is repaired may show another rule broken: the run of the job, for instance."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the first argument says; the exit code of an error, else 0."""
    parser = argparse.ArgumentParser(prog="moorage.server.offline")
    parser.add_argument("what", choices=("check", "repair", "restore"))
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--deep", action="store_true")
    parser.add_argument("--file", type=Path)
    parser.add_argument("--database", default="")
    parser.add_argument("--notes-fd", type=int)
    given = parser.parse_args(arguments)
    if given.notes_fd is not None:
        notes.tell(given.notes_fd, "moorage: ")
    try:
        configured = settings.load(given.home).database
        chosen = database.choose(given.database, os.environ, configured, given.home)
        if given.what == "restore":
            reply: Struct = _restore(given.home, given.file, chosen)
        else:
            with _examined(given.home / "server", chosen) as (store, blobs):
                reply = _check(store, blobs, given.what == "repair", deep=given.deep)
    except InvalidInput as error:
        print("\n".join(map(str, error.problems)), file=sys.stderr)
        return error.exit_code
    except (MoorageError, OSError) as error:
        print(error, file=sys.stderr)
        return getattr(error, "exit_code", 1)
    _say(Told(reply=msgspec.Raw(msgspec.json.encode(reply))))
    return 0


def _say(told: Told) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
    sys.stdout.buffer.flush()


class _Teller:
    """Says how far it is, a few times a second."""

    def __init__(self) -> None:
        self._said = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """See `Tell`."""
        now = time.monotonic()
        if now - self._said > _SAY_EVERY:
            self._said = now
            _say(Told(progress=Progress(what, done, total)))


@contextmanager
def _examined(directory: Path, chosen: str) -> Iterator[tuple[Store, Blobs]]:
    """The store as it is, whatever is wrong with it; no server uses it meanwhile."""
    store: Store
    packs: Packs | None = None
    if chosen == database.SQLITE:
        store = examine_sqlite(directory / "moorage.db")
        writer = Writer(store)
    else:
        from moorage.store.databasepacks import DatabasePacks
        from moorage.store.postgres import examine_postgres

        store = shared = examine_postgres(chosen)
        writer = Writer(store)
        packs = DatabasePacks(shared, writer)
        settings.make_private(directory)
    try:
        yield store, Blobs(directory, store, writer, packs=packs)
    finally:
        writer.close()
        store.close()


def _check(store: Store, blobs: Blobs, repair: bool, *, deep: bool) -> CheckReply:
    if (other := _other_schema(store)) is not None:
        return CheckReply([other], {}, deep)
    checked = check_store(store, blobs, time.time(), deep=deep, tell=_Teller())
    return _repair(store, blobs, checked) if repair else checked.reply


def _other_schema(store: Store) -> Finding | None:
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


def _repair(store: Store, blobs: Blobs, checked: Checked) -> CheckReply:
    """Repair what is mechanical, after a copy of the database; what is then still wrong."""
    deep = checked.reply.deep
    file = store.file if isinstance(store, SqliteStore) else None
    old = file is not None and not file.can_shrink()
    if not old and not any(one.finding.repairable for one in checked.found):
        return checked.reply
    stamp = time.strftime("%Y%m%d-%H%M%S")
    copy = blobs.directory / f"moorage.db.before-repair-{stamp}"
    with workspace(blobs.directory, "copy") as work:
        snapshot_of(store)(work / copy.name, _Teller())
        (work / copy.name).chmod(0o600)
        (work / copy.name).replace(copy)
    for _ in range(_ROUNDS):
        if not any(one.finding.repairable for one in checked.found):
            break
        if file is not None:
            file.reindex()
        store.write([statement for one in checked.found for statement in one.repair])
        checked = check_store(store, blobs, time.time(), deep=deep, tell=_Teller())
    if file is not None and old:
        file.convert()
    return checked.reply


def _restore(home: Path, file: Path | None, chosen: str) -> RestoreReply:
    if file is None or not file.is_file():
        raise InvalidInput(Problem("there is no such file", file=str(file)))
    settings.make_private(home)
    directory = settings.make_private(home / "server")
    if chosen == database.SQLITE:
        found = restore(file, directory, time.time(), _Teller())
    else:
        with closing(moving.opened(home, chosen)) as target:
            found = restore_into(target, file, directory, time.time(), _Teller())
    database.remember(home, chosen)
    return RestoreReply(
        created_at=found.manifest.created_at,
        version=found.manifest.version,
        runs=found.runs,
        packs=len(found.manifest.packs),
        next_run=found.first_run,
    )


if __name__ == "__main__":
    sys.exit(main())
