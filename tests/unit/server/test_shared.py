"""A server on a shared database, in this process: what it does while the database is of no use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from moorage.server import shared
from moorage.server.door import Door, closed
from moorage.server.options import Options
from moorage.server.shared import Shared
from moorage.server.site import Reach, settle
from postgres import Postgres

OWN = "http://127.0.0.1:1"
PATIENCE = 60.0
MANY_TRIES = 200.0
"""Seconds; each is a thread and a connection that is refused."""


@asynccontextmanager
async def working(home: Path, database: str) -> AsyncIterator[Shared]:
    site = settle(Options(home, "127.0.0.1", 0, None, with_node=False), "0", 0.0)
    house = Shared(site, Door(), database)
    await house.enter(Reach(OWN))
    work = asyncio.ensure_future(house.work())
    try:
        assert await leads(house, work)
        yield house
        assert not work.done(), work.result()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await house.leave()
        house.close()


async def leads(house: Shared, work: asyncio.Future[None]) -> bool:
    """Wait until it does; False where it ended instead."""
    waiting = asyncio.ensure_future(house._peers.until_leader(PATIENCE))
    await asyncio.wait((waiting, work), return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        return False
    return waiting.result() == OWN


class Pauses:
    """Stands in for the chance in each pause, and counts them."""

    def __init__(self, most: int, length: float) -> None:
        self.left = most
        self.length = length
        self.reached = asyncio.Event()

    def __call__(self) -> float:
        self.left -= 1
        if self.left == 0:
            self.reached.set()
        return self.length


def test_a_long_outage_is_outlived(
    tmp_path: Path, own_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        pauses = Pauses(1200, 0.0)
        async with working(tmp_path / "home", own_postgres.new_database()) as house:
            monkeypatch.setattr(shared, "_jitter", pauses)
            own_postgres.stop()
            await asyncio.wait_for(pauses.reached.wait(), MANY_TRIES)
            own_postgres.start()
            assert await asyncio.wait_for(house._peers.until_leader(PATIENCE), PATIENCE) == OWN

    asyncio.run(main())


def test_who_cannot_lead_does_not_try_without_a_pause(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(text: str) -> None:
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute(text.encode())

    async def main() -> None:
        pauses = Pauses(3, 0.1)
        async with working(tmp_path / "home", database) as house:
            monkeypatch.setattr(shared, "_jitter", pauses)
            execute("ALTER TABLE dropped_logs RENAME TO gone")
            execute("SELECT pg_terminate_backend(CAST(session AS integer)) FROM servers")
            await asyncio.wait_for(pauses.reached.wait(), PATIENCE)
            execute("ALTER TABLE gone RENAME TO dropped_logs")
            assert await asyncio.wait_for(house._peers.until_leader(PATIENCE), PATIENCE) == OWN

    asyncio.run(main())


def test_a_home_that_cannot_be_written_is_no_reason_to_end(tmp_path: Path, database: str) -> None:
    async def main() -> None:
        home = tmp_path / "home"
        async with working(home, database) as house:
            (home / "server.json").unlink()
            (home / "server.json").mkdir()
            with psycopg.connect(database, autocommit=True) as admin:
                admin.execute(
                    "INSERT INTO servers (id, url, version, started_at, seen_at)"
                    " VALUES ('b', 'http://b:1', '0', 0, 60 + extract(epoch FROM now()))"
                )
            async with asyncio.timeout(PATIENCE):
                while "http://b:1" not in house._peers.addresses:
                    house._peers.doubted.set()
                    await asyncio.sleep(0.05)
            assert house._door.application is not closed

    asyncio.run(main())
