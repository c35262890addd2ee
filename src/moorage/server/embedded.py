"""A server with the embedded database: it leads from its first moment to its last."""

from __future__ import annotations

from collections.abc import Callable

from moorage.engine import boot
from moorage.errors import Unavailable
from moorage.server.admission import Admission, admitting, one_authority
from moorage.server.app import build
from moorage.server.chores import chores
from moorage.server.door import Door
from moorage.server.objectstore import beside
from moorage.server.services import Services
from moorage.server.site import Reach, Site
from moorage.server.storage.setup import equip
from moorage.store.blobs import Blobs
from moorage.store.sqlite import open_sqlite
from moorage.store.writer import Writer


class Embedded:
    """Implements `process.House` over SQLite. StoreBroken where it cannot be opened."""

    def __init__(self, site: Site, door: Door) -> None:
        self._store = open_sqlite(site.directory / "moorage.db")
        self._writer = Writer(self._store)
        try:
            batch = admitting(self._store, site.holders, site.id, adopt=True)
            if batch:
                self._writer.submit(batch).result()
            self._engine = boot.start(
                self._store, self._writer, site.version, lease=site.settings.node_lease
            )
        except BaseException:
            self.close()
            raise
        object_store = beside(site.directory, self._engine)
        storage = equip(self._engine, object_store, site.settings, site.directory)
        self._services = Services(
            engine=self._engine,
            blobs=Blobs(
                site.directory,
                self._store,
                self._writer,
                upload_limit=site.settings.upload_limit,
            ),
            settings=site.settings,
            admission=Admission(self._store),
            object_store=object_store,
            storages=storage.storages,
            mounts=storage.mounts,
            directory=site.directory,
            user=site.user,
            version=site.version,
            started_at=site.started_at,
            loopback=True,
        )
        self._site = site
        self._reach = Reach("")
        door.application = build(self._services)

    def authority(self, make: Callable[[], str]) -> str:
        """See `House.authority`."""
        return one_authority(self._store, make, lambda batch: self._writer.submit(batch).result())

    async def enter(self, reach: Reach) -> None:
        """See `House.enter`. It has led since it was opened."""
        self._reach = reach
        self._site.tell(reach)

    async def work(self) -> None:
        """See `House.work`."""
        async with chores(self._services, self._site, self._reach):
            await self._engine.stopped.wait()
        raise Unavailable(f"the server had to stop: {self._engine.failure}")

    async def leave(self) -> None:
        """See `House.leave`."""
        self._engine.close()

    def close(self) -> None:
        """See `House.close`."""
        self._writer.close()
        self._store.close()
