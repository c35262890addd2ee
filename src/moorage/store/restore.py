"""A backup becomes a store again.

Nodes may have gone on after the backup, and know of attempts, and of a server, that the backup
does not. So no number of after the backup may be given out again: epoch, runs, jobs and events go
on far beyond what could have been used, and the next attempt of each job begins a new million.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import msgspec
from backports import zstd
from blake3 import blake3

from moorage.decoding import from_json
from moorage.errors import InvalidInput, MoorageError, Problem
from moorage.store.backup import DATABASE, FORMAT, MANIFEST, Manifest, Part
from moorage.store.base import Statement, Store
from moorage.store.numbers import MARGIN
from moorage.store.sqlite import open_sqlite
from moorage.store.sqlite_file import SqliteFile
from moorage.store.telling import Tell, nobody
from moorage.store.transfer import End, transfer
from moorage.store.transfer import require_empty as require_empty_end
from moorage.store.transfer_sqlite import SqliteEnd
from moorage.store.workspace import workspace

ATTEMPTS = 1_000_000
"""Attempts of one job between two restores, at most."""
_PER_SECOND = 1_000
"""Runs, jobs or events that a server has made a second since its backup, at most on average."""
NODES_PATIENCE = 60.0
"""Seconds before queued jobs start: nodes that come back say first what they still run."""
_PACK = re.compile(r"packs/([0-9a-f]{2})[0-9a-f]{30}\.pack")
_CHUNK = 1024 * 1024


class Damaged(MoorageError):
    """The file is no backup, or not a whole one."""

    code = "damaged"
    exit_code = InvalidInput.exit_code


class Restored(NamedTuple):
    """What was put back, and how far numbers were raised."""

    manifest: Manifest
    runs: int
    first_run: int


def restore(file: Path, directory: Path, now: float, tell: Tell = nobody) -> Restored:
    """Make a store in `directory`, where there is none, from a backup. Nothing is there before
    all of it was verified. InvalidInput, Damaged; OSError where the disk refuses."""
    require_empty(directory)
    with _verified(file, directory, now, tell) as (work, restored):
        for name in ("packs", "moorage.db"):  # the database last: with it, all is there
            (work / name).replace(directory / name)
        _sync(directory)
    return restored


def restore_into(
    target: End, file: Path, directory: Path, now: float, tell: Tell = nobody
) -> Restored:
    """The same into another database, which is empty. `directory` is where it is unpacked."""
    require_empty_end(target)
    with _verified(file, directory, now, tell) as (work, restored), closing(SqliteEnd(work)) as it:
        transfer(it, target, tell)
    return restored


@contextmanager
def _verified(
    file: Path, directory: Path, now: float, tell: Tell
) -> Iterator[tuple[Path, Restored]]:
    """A whole store, in a directory of its own that is gone afterwards."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with workspace(directory, "restore") as work:
        (work / "packs").mkdir(mode=0o700)
        manifest = _unpack(file, work, tell)
        _require_sound(file, work / "moorage.db")
        yield work, _raise_numbers(work / "moorage.db", manifest, now)


def require_empty(directory: Path) -> None:
    """InvalidInput where there is a store already."""
    packs = directory / "packs"
    if (directory / "moorage.db").exists() or (packs.is_dir() and any(packs.iterdir())):
        fix = f"move it away (mv {directory} {directory}.old), or set another MOORAGE_HOME"
        raise InvalidInput(
            Problem("there is a store already; nothing is overwritten", fix, file=str(directory))
        )
    if packs.is_dir():
        packs.rmdir()


def _unpack(file: Path, work: Path, tell: Tell) -> Manifest:
    size = file.stat().st_size
    found: dict[str, Part] = {}
    manifest: Manifest | None = None
    try:
        with tarfile.open(file, "r|") as archive:
            for member in archive:
                tell("backup", min(size, archive.offset), size)
                content = archive.extractfile(member)
                if manifest is not None or content is None or member.name in found:
                    raise Damaged(f"{file} has a part that is none of a backup: {member.name}")
                if member.name == MANIFEST:
                    manifest = from_json(content.read(), Manifest)
                else:
                    found[member.name] = _extract(file, member.name, content, work)
    except (tarfile.TarError, zstd.ZstdError, msgspec.DecodeError, EOFError) as error:
        raise Damaged(f"{file} is no backup, or not a whole one: {error}") from None
    if manifest is None:
        raise Damaged(f"{file} is not a whole backup: it was cut off")
    if manifest.format != FORMAT:
        raise Damaged(f"{file} has format {manifest.format}: restore it with a newer moorage")
    for part in (manifest.database, *manifest.packs):
        if found.pop(part.name, None) != part:
            raise Damaged(f"{file} is damaged: {part.name} is not what it was")
    if found:
        raise Damaged(f"{file} has a part that its manifest does not name: {min(found)}")
    return manifest


def _extract(file: Path, name: str, content: IO[bytes], work: Path) -> Part:
    pack = _PACK.fullmatch(name)
    if name != DATABASE and pack is None:
        raise Damaged(f"{file} has a part that is none of a backup: {name}")
    target = work / "moorage.db" if pack is None else work / "packs" / pack[1] / Path(name).name
    target.parent.mkdir(mode=0o700, exist_ok=True)
    hasher, size = blake3(), 0
    decompressor = zstd.ZstdDecompressor() if pack is None else None
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        while chunk := content.read(_CHUNK):
            raw = decompressor.decompress(chunk) if decompressor else chunk
            hasher.update(raw)
            size += out.write(raw)
        out.flush()
        os.fsync(out.fileno())
    _sync(target.parent)
    return Part(name, size, hasher.hexdigest())


def _require_sound(file: Path, database: Path) -> None:
    if damage := SqliteFile(database).damage():
        raise Damaged(f"the database in {file} is damaged: {damage[0]}")


def _raise_numbers(path: Path, manifest: Manifest, now: float) -> Restored:
    store = open_sqlite(path)
    try:
        gap = MARGIN + int(max(0.0, now - manifest.created_at)) * _PER_SECOND
        ids = store.read("max_ids")[0]
        store.write(_raising(store, gap, ids["run"], ids["job"], manifest.created_at, now))
        runs: int = store.read("restore_count")[0]["total"]
        return Restored(manifest, runs, ids["run"] + gap + 1)
    finally:
        store.close()
        for name in ("-wal", "-shm", ".lock"):
            path.with_name(path.name + name).unlink(missing_ok=True)


def _raising(
    store: Store, gap: int, run: int, job: int, created_at: float, now: float
) -> list[Statement]:
    attempt = _number(store, "restored_attempt") + ATTEMPTS
    numbers = {
        "epoch": _number(store, "epoch") + gap,
        "highest_run": run + gap,
        "highest_job": job + gap,
        "restored_jobs": job,
        "restored_attempt": attempt,
    }
    newest: int = store.read("max_seq")[0]["seq"]
    event = {
        **dict.fromkeys(("run_id", "job_id", "node_id")),
        "at": now,
        "kind": "server.restored",
        "data": msgspec.json.encode({"created_at": created_at}).decode(),
    }
    return [
        *(Statement("set_meta", {"key": key, "value": str(n)}) for key, n in numbers.items()),
        Statement("restore_queued_jobs", {"attempt": attempt - 1, "at": now + NODES_PATIENCE}),
        Statement("restore_assigned_attempts", {}),
        Statement("restore_prefilled_attempts", {}),
        Statement("restore_nodes", {}),
        Statement("restore_event_numbers", {"seq": newest + gap}),
        Statement("insert_event", event),
    ]


def _number(store: Store, key: str) -> int:
    return sum(int(row["value"]) for row in store.read("meta", {"key": key}))


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
