"""Programs that are killed: each prints the number of what was acknowledged, one a line."""

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
from moorage.store.blobs import Blobs
from moorage.store.sqlite import open_sqlite
from moorage.store.writer import Writer

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


def write(directory: Path, number: int) -> None:
    """Batches of events, numbered by their run, up to twenty of them unacknowledged."""
    writer = Writer(open_sqlite(directory / "moorage.db"))
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
    store = open_sqlite(directory / "moorage.db")
    blobs = Blobs(directory, store, Writer(store))

    def one(first: int) -> None:
        for upload_number in range(first, 1_000_000, UPLOADERS):
            blobs.add_pack(pack(upload_number))
            say(upload_number)

    for first in range(1, UPLOADERS + 1):
        threading.Thread(target=one, args=(number + first,)).start()


if __name__ == "__main__":
    {"write": write, "upload": upload}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
