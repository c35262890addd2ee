"""Programs that are killed: each prints the number of what was acknowledged, one a line.

They use SQLite, or the PostgreSQL that MOORAGE_TEST_DATABASE names: addresses hold passwords,
which nobody may see among the arguments of a process.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

from backports import zstd
from blake3 import blake3

from contract import rows
from moorage.protocol import packs
from moorage.store.base import Store
from moorage.store.blobs import Blobs
from moorage.store.databasepacks import DatabasePacks
from moorage.store.leader import Identity
from moorage.store.packfiles import PackFiles
from moorage.store.packs import Packs
from moorage.store.postgres import open_postgres
from moorage.store.postgres_store import PostgresStore
from moorage.store.sqlite import open_sqlite
from moorage.store.writer import Writer

DATABASE = "MOORAGE_TEST_DATABASE"
BATCH = 7
UPLOADERS = 3


def contents(number: int) -> list[bytes]:
    """The blobs of upload `number`."""
    return [f"upload {number} blob {part} ".encode() * 400 for part in range(20)]


def pack(number: int) -> bytes:
    parts = []
    for raw in contents(number):
        data = zstd.compress(raw)
        parts += [packs.header(blake3(raw).hexdigest(), len(data), len(raw)), data]
    return b"".join(parts)


def say(number: int) -> None:
    os.write(1, b"%d\n" % number)


def opened(directory: Path, url: str | None) -> Store:
    """A store that writes."""
    if url is None:
        return open_sqlite(directory / "moorage.db")
    store = open_postgres(url)
    store.leadership(Identity("crash", "http://127.0.0.1:1", "1")).acquire()
    return store


def packs_of(directory: Path, store: Store, writer: Writer) -> Packs:
    """Where a server with this database keeps content."""
    if isinstance(store, PostgresStore):
        return DatabasePacks(store, writer)
    return PackFiles(directory / "packs")


def write(directory: Path, number: int) -> None:
    """Batches of events, numbered by their run, up to twenty of them unacknowledged."""
    writer = Writer(opened(directory, os.environ.get(DATABASE)))
    waiting: list[Future[None]] = []
    while True:
        number += 1
        future = writer.submit([rows.event(run_id=number, job_id=n) for n in range(BATCH)])
        future.add_done_callback(lambda done, n=number: done.result() or say(n))
        waiting.append(future)
        if len(waiting) > 20:
            waiting.pop(0).result()


def upload(directory: Path, number: int) -> None:
    """Packs from several threads at once."""
    store = opened(directory, os.environ.get(DATABASE))
    writer = Writer(store)
    blobs = Blobs(directory, store, writer, packs=packs_of(directory, store, writer))

    def one(first: int) -> None:
        for upload_number in range(first, 1_000_000, UPLOADERS):
            blobs.add_pack(pack(upload_number))
            say(upload_number)

    for first in range(1, UPLOADERS + 1):
        threading.Thread(target=one, args=(number + first,)).start()


if __name__ == "__main__":
    {"write": write, "upload": upload}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
