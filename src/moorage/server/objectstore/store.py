"""The embedded store's life: started when it is first needed, found again by the next server,
started again when it dies, stopped with the server."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import structs

from moorage.errors import Unavailable
from moorage.protocol.objectstore import EmbeddedState, EmbeddedView
from moorage.server.objectstore import place
from moorage.server.objectstore.place import Keeping
from moorage.server.objectstore.process import Process, find, program, start, tidy
from moorage.specs.stores.record import Access

KIND = "moorage"
REGION = "us-east-1"
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds between two tries to start it again."""
SHARED = (
    "moorage's own store is for a server with its own database: several servers on one PostgreSQL "
    "would each have another one; declare a store that all reach: moorage store add"
)

Tell = Callable[[str, Mapping[str, Any]], None]
"""The kind of an event, and what it says."""

_log = logging.getLogger(__name__)


class ObjectStore:
    """One a server. `refused`: why this server can have none."""

    def __init__(self, directory: Path, tell: Tell, refused: str = "") -> None:
        """`directory`: `server/store` in the home; made when it is needed."""
        self._directory = directory
        self._tell = tell
        self._refused = refused
        self._lock = asyncio.Lock()
        self._process: Process | None = None
        self._keeping: Keeping | None = None
        self._problem = ""
        self._watch: asyncio.Task[None] | None = None

    async def access(self) -> Access:
        """How to reach it from this machine; it answers. Unavailable."""
        await self.start()
        assert self._keeping is not None
        return Access(
            kind=KIND,
            endpoint=f"http://127.0.0.1:{self._keeping.port}",
            region=REGION,
            path_style=True,
            secrets={
                "access_key_id": self._keeping.access_key_id,
                "secret_access_key": self._keeping.secret_access_key,
            },
        )

    @property
    def refused(self) -> str:
        """Why this server can have none; empty: it can."""
        return self._refused

    async def start(self) -> None:
        """Until it answers; nothing where it does. Unavailable."""
        if self._refused:
            raise Unavailable(self._refused)
        async with self._lock:
            if self._process is None:
                await self._begin()

    async def stop(self) -> bool:
        """Until it is needed again; False where it did not run. What it holds stays."""
        await self._unwatch()
        with suppress(FileNotFoundError):
            (self._directory / "wanted").unlink()
        return await self._end()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to where it speaks S3, for the relay. Unavailable, OSError."""
        await self.start()
        assert self._keeping is not None
        return await asyncio.open_connection("127.0.0.1", self._keeping.port, limit=1 << 18)

    async def serve(self) -> None:
        """For as long as the server leads: goes on with one that runs, starts one that was needed
        before; never returns. When it is cancelled the store is stopped."""
        try:
            if not self._refused and (self._directory / "wanted").exists():
                with suppress(Unavailable):  # it is in the log, and tried again when it is needed
                    await self.start()
            await asyncio.Event().wait()
        finally:
            await self._unwatch()
            await self._end()

    def state(self) -> EmbeddedView:
        """Blocks for a look at the disk."""
        about = str(self._directory)
        problem = self._problem or self._refused
        keeping = self._keeping or place.kept(self._directory)
        if keeping is None:
            return EmbeddedView("none", directory=about, problem=problem)
        process = self._process
        word: EmbeddedState = "failing" if self._watch is not None else "stopped"
        return EmbeddedView(
            word if process is None else "running",
            None if process is None else process.pid,
            "" if process is None else f"http://127.0.0.1:{keeping.port}",
            about,
            _size(self._directory),
            _free(self._directory),
            problem if process is None else "",
        )

    async def _begin(self) -> None:
        """With the lock held."""
        try:
            self._keeping, self._process = await self._obtain()
        except Unavailable as error:
            self._complain(str(error))
            raise
        except OSError as error:
            self._complain(f"{error.filename or self._directory}: {error.strerror}")
            raise Unavailable(self._problem) from None
        self._problem = ""
        (self._directory / "wanted").touch(0o600)
        if self._watch is None:
            self._watch = asyncio.ensure_future(self._tend())

    async def _obtain(self) -> tuple[Keeping, Process]:
        """The one that runs, else a new one."""
        keeping = place.kept(self._directory)
        if keeping is not None and (found := find(self._directory)) is not None:
            _log.info("the object store with pid %d goes on", found.pid)
            return keeping, found
        program()  # before anything is written for it
        keeping = place.settled(self._directory)
        if not place.are_free(keeping.ports):
            _log.warning("another program has the object store's ports: it gets others")
            keeping = structs.replace(keeping, ports=place.free_ports())
            place.remember(self._directory, keeping)
        process = await start(self._directory, keeping)
        _log.info("the object store runs on port %d (pid %d)", keeping.port, process.pid)
        self._tell("store.started", {"store": KIND})
        return keeping, process

    async def _tend(self) -> None:
        """Start it again whenever it ends."""
        while True:
            process = self._process
            if process is not None:
                await process.ended()
                async with self._lock:
                    self._forget()
                self._complain(f"the process of moorage's own store ended (pid {process.pid})")
                self._tell("store.ended", {"store": KIND})
            pause = FIRST_PAUSE
            while self._process is None:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                with suppress(Unavailable):
                    await self.start()

    async def _unwatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _end(self) -> bool:
        async with self._lock:
            process = self._process
            if process is None and not self._refused:
                process = self._process = find(self._directory)
            if process is None:
                return False
            await process.end()
            self._forget()
            if (keeping := place.kept(self._directory)) is not None:
                tidy(keeping)
        self._tell("store.stopped", {"store": KIND})
        return True

    def _forget(self) -> None:
        if self._process is not None:
            self._process.forget()
            self._process = None

    def _complain(self, reason: str) -> None:
        """Once, however often it fails for the same reason."""
        if reason != self._problem:
            self._problem = reason
            _log.error("%s", reason)


def _size(directory: Path) -> int:
    """Bytes on the disk."""
    total = 0
    for top, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(top, name)).st_blocks * 512  # noqa: PTH118
    return total


def _free(directory: Path) -> int:
    room = os.statvfs(directory)
    return room.f_bavail * room.f_frsize
