"""A server's worth of leading, to be frozen and killed: takes the lock, says so, then writes
numbered batches and prints each one that was acknowledged. The address comes by the environment,
because it holds a password."""

from __future__ import annotations

import os
import sys

from contract import rows
from moorage.store.base import StoreBroken
from moorage.store.leader import Identity
from moorage.store.postgres import open_postgres

BATCH = 7


def main(first: int) -> None:
    store = open_postgres(os.environ["MOORAGE_TEST_DATABASE"])
    leadership = store.leadership(Identity(f"of-{first}", "http://127.0.0.1:1", "1"))
    leadership.announce()
    leadership.acquire()
    store.write([leadership.begin(first)])
    os.write(1, b"leads\n")
    number = first
    try:
        while True:
            number += 1
            store.write([rows.event(run_id=number, job_id=n) for n in range(BATCH)])
            os.write(1, b"%d\n" % number)
    except StoreBroken as error:
        os.write(1, f"broken {error}\n".encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
