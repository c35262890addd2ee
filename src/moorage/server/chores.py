"""What a server that leads does beside answering."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from moorage.server.retention import Growth
from moorage.server.services import Services
from moorage.server.site import Reach, Site
from moorage.server.storage.tending import Tender

_log = logging.getLogger(__name__)


@asynccontextmanager
async def chores(services: Services, site: Site, reach: Reach) -> AsyncIterator[None]:
    """They go on for the length of a block. `reach`: where this server listens."""
    from moorage.server.hosts import tend_hosts  # ssh and archives: not before it answers

    tasks = [
        asyncio.ensure_future(Growth(services).run()),
        asyncio.ensure_future(tend_hosts(services.engine, site, reach, services.peers)),
        asyncio.ensure_future(services.object_store.serve()),
        asyncio.ensure_future(Tender(services.storages).run()),
    ]
    for task in tasks:
        task.add_done_callback(report_crash)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def report_crash(chore: asyncio.Future[None]) -> None:
    """A done callback: a chore that fails is not silent."""
    if not chore.cancelled() and chore.exception() is not None:
        _log.error("a chore of the server failed", exc_info=chore.exception())
