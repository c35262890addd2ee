"""One server from its first file to its last commit."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from moorage.backends.local import LocalBackend
from moorage.errors import Unavailable
from moorage.server.chores import report_crash
from moorage.server.database import SQLITE, VARIABLE, choose, remember
from moorage.server.door import Door
from moorage.server.embedded import Embedded
from moorage.server.listener import listen
from moorage.server.options import Options
from moorage.server.reach import CA_FILE, secured
from moorage.server.site import Reach, Site, settle
from moorage.store.workspace import sweep

_log = logging.getLogger(__name__)


class House(Protocol):
    """A server over one kind of database. It opens the door to its application by itself, and
    again whenever its role changes."""

    def authority(self, make: Callable[[], str]) -> str:
        """The certificate authority of the database; it is made where there is none. Secret."""

    async def enter(self, reach: Reach) -> None:
        """Called once, when it listens there: on return it answers, and `server.json` says
        where."""

    async def work(self) -> None:
        """Serve; never returns. MoorageError where it cannot go on."""

    async def leave(self) -> None:
        """Let go of agents and followers, and whatever keeps another server from leading."""

    def close(self) -> None:
        """Close the database. Called last, and also where nothing else was."""


async def serve(options: Options) -> int:
    """Run a server until it is told to end; the exit code. MoorageError if it cannot begin."""
    import moorage

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    site = settle(options, moorage.__version__, time.time())
    sweep(site.directory)
    door = Door()
    house = _house(site, door)
    try:
        with _bound(options, site.directory) as listening:
            async with (
                secured(site, house.authority, door, _url(listening)) as reach,
                listen(door, listening),
            ):
                try:
                    await house.enter(reach)
                    _announce(options, reach)
                    await _until_told(site, reach, house, stop)
                finally:
                    site.withdraw()
    finally:
        house.close()
    _log.info("stopped")
    return 0


def _house(site: Site, door: Door) -> House:
    home = site.options.home
    database = choose(site.options.database, os.environ, site.settings.database, home)
    if database == SQLITE:
        house = Embedded(site, door)
        remember(home, database)
        return house
    try:
        from moorage.server.shared import Shared
    except ImportError as error:
        raise Unavailable(
            f"PostgreSQL needs packages that are not installed ({error.name}): "
            "pip install 'moorage[postgres]'"
        ) from None
    return Shared(site, door, database)


@contextmanager
def _bound(options: Options, directory: Path) -> Iterator[socket.socket]:
    """A bound socket. Without a wish it is on the port of the last time, so that agents and
    clients which knew the last server find this one."""
    memory = directory / "port"
    ports = [options.port]
    if not options.port:
        with suppress(OSError, ValueError):
            ports.insert(0, int(memory.read_text()))
    listening = _bind(options.host, ports)
    try:
        memory.write_text(f"{listening.getsockname()[1]}\n")
        yield listening
    finally:
        listening.close()


def _bind(host: str, ports: list[int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reason = ""
    for port in ports:
        # asyncio switches Nagle's delay off only where the protocol is named: 40 ms a message.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(1024)
        except (OSError, OverflowError) as error:
            listening.close()
            reason = str(error)
            continue
        return listening
    raise Unavailable(f"cannot listen on {host} port {ports[-1]}: {reason}; choose another --port")


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announce(options: Options, reach: Reach) -> None:
    where = " and ".join((reach.url, *reach.secure))
    _log.info("serving %s at %s (pid %d)", options.home, where, os.getpid())
    if options.ready_fd is not None:
        with suppress(OSError):  # whoever waited has gone
            os.write(options.ready_fd, b"ready\n")
            os.close(options.ready_fd)


async def _until_told(site: Site, reach: Reach, house: House, stop: asyncio.Event) -> None:
    """Work until a signal comes or the house cannot go on."""
    backend = _backend(site, reach)
    node = asyncio.ensure_future(backend.run(reach.url)) if site.options.with_node else None
    if node is not None:
        node.add_done_callback(report_crash)
    working = asyncio.ensure_future(house.work())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        _log.info("stopping")
        tasks = [task for task in (working, stopping, node) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await house.leave()  # followers must end before the listener, which waits for them
        await backend.stop()


def _backend(site: Site, reach: Reach) -> LocalBackend:
    options = ["--log-limit", str(site.settings.log_limit)]
    options += ["--flush-timeout", str(site.settings.flush_timeout)]
    options += ["--engines", ",".join(site.settings.engines)]
    options += ["--docker", "yes" if site.settings.docker else "no"]
    if reach.ca:
        options += ["--ca", str(site.directory / CA_FILE)]
    if site.node_name:
        options += ["--name", site.node_name]
    return LocalBackend(site.options.home, options=options, secrets=(VARIABLE, "PGPASSWORD"))
