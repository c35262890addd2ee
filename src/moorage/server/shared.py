"""A server on a database that others use as well: it stands by until it leads, and stands by again
when it does so no longer, all in one process.

A term is one session of the database. Whatever a term had in memory ends with it: store, writer,
engine, links and followers; only the address and what is known of the other servers stay.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable

from moorage.server.admission import one_authority
from moorage.server.database import remember, shown
from moorage.server.door import Door, closed
from moorage.server.forward import Forwarder
from moorage.server.peers import Peers
from moorage.server.site import Reach, Site
from moorage.server.standby import blind
from moorage.server.term import Term
from moorage.server.watchdog import Watchdog
from moorage.store.base import StoreBroken
from moorage.store.leader import Identity, Interrupted
from moorage.store.postgres import open_postgres
from moorage.store.postgres_store import PostgresStore

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
"""Seconds between two tries to reach a database that does not answer, or to lead."""
LIVED_WELL = 5.0
"""Seconds after which the end of a term is no longer taken for a failed beginning."""
HUNG_AFTER = 90.0
"""Seconds that the loop may hang: longer than it may wait for the database, because to end then
would help nobody. Others need not wait for this: a loop that hangs does not beat."""

_log = logging.getLogger(__name__)


class Shared:
    """Implements `process.House` over PostgreSQL. StoreBroken where it does not answer."""

    def __init__(self, site: Site, door: Door, database: str) -> None:
        self._site = site
        self._door = door
        self._database = database
        self._first: PostgresStore | None = open_postgres(database)
        remember(site.options.home, database)
        self._reach = Reach("")
        self._peers = Peers("")
        self._forward: Forwarder | None = None
        self._identity = Identity(site.id, "", site.version, site.settings.leader_lease)
        self._term: Term | None = None
        self._complaint = ""

    def authority(self, make: Callable[[], str]) -> str:
        """See `House.authority`."""
        assert self._first is not None
        return one_authority(self._first, make, self._first.write_aside)

    async def enter(self, reach: Reach) -> None:
        """See `House.enter`: on return it is registered and answers as a standby."""
        self._reach = reach
        self._peers = Peers(reach.public)
        self._forward = Forwarder(self._peers, self._door, reach.ca)
        self._identity = self._identity._replace(url=reach.public)
        assert self._first is not None
        self._term = await self._begin(self._first)
        self._first = None

    async def work(self) -> None:
        """See `House.work`. Only a defect ends it."""
        pause = 0.0
        with Watchdog(HUNG_AFTER):
            while True:
                if await self._one_term():
                    pause, self._complaint = 0.0, ""
                else:
                    pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * pause))
                    await asyncio.sleep(pause * _jitter())

    async def _one_term(self) -> bool:
        """Serve for as long as the database lets it; whether that was a good while."""
        loop = asyncio.get_running_loop()
        began = math.inf
        try:
            if self._term is None:
                store = await asyncio.to_thread(open_postgres, self._database)
                self._term = await self._begin(store)
            began = loop.time()
            await self._term.serve()
        except (StoreBroken, Interrupted) as error:
            self._complain(str(error))
        lived_well = loop.time() - began > LIVED_WELL
        await self._end_term()
        return lived_well

    async def leave(self) -> None:
        """See `House.leave`. The lock is released in good order, so another one leads at once."""
        self._door.application = closed
        term, self._term = self._term, None
        if term is not None:
            await term.end(withdraw=True)
        if self._forward is not None:
            await self._forward.close()

    def close(self) -> None:
        """See `House.close`."""
        if self._first is not None:
            self._first.close()

    async def _begin(self, store: PostgresStore) -> Term:
        assert self._forward is not None
        try:
            return await Term.begin(
                self._site,
                store,
                self._identity,
                reach=self._reach,
                peers=self._peers,
                door=self._door,
                forward=self._forward,
                database=shown(self._database),
            )
        except BaseException:
            await asyncio.to_thread(store.close)
            raise

    async def _end_term(self) -> None:
        assert self._forward is not None
        if self._peers.leading:
            _log.warning("leading no longer")
        self._peers.leading = False
        self._peers.doubt(self._peers.own)
        self._door.application = blind(self._peers, self._forward, True)
        term, self._term = self._term, None
        if term is not None:
            await term.end()

    def _complain(self, reason: str) -> None:
        """Once, however often it fails for the same reason."""
        if reason != self._complaint:
            self._complaint = reason
            _log.warning("standing by without the database: %s", reason)


def _jitter() -> float:
    return random.uniform(0.5, 1.0)  # noqa: S311 - no secret
