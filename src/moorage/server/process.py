"""One server from its first file to its last commit."""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from moorage.backends.local import LocalBackend
from moorage.engine import boot
from moorage.errors import MoorageError, Unavailable
from moorage.server import settings, tokens
from moorage.server.listener import listen
from moorage.server.options import Options
from moorage.server.services import Services
from moorage.server.tokens import Kind, KnownToken, Principal
from moorage.store.base import Statement, Store
from moorage.store.blobs import Blobs
from moorage.store.sqlite import open_sqlite
from moorage.store.writer import Writer

COLLECT_EVERY = 86_400.0
NODE_LABEL = "local"

_log = logging.getLogger(__name__)


async def serve(options: Options) -> int:
    """Run a server until it is told to end; the exit code. MoorageError if it cannot begin."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    settings.make_private(options.home)
    directory = settings.make_private(options.home / "server")
    with _opened(directory) as (store, writer):
        services, secret = _assemble(options, directory, store, writer)
        engine = services.engine
        try:
            with _bound(options, directory) as listening:
                url = _url(listening)
                async with listen(services, listening):
                    tell(options.home, url, secret)
                    _announce(options, url)
                    await _until_told(options, url, services, stop)
        finally:
            engine.close()
            (options.home / "server.json").unlink(missing_ok=True)
    if engine.failure is not None:
        raise Unavailable(f"the server had to stop: {engine.failure}")
    _log.info("stopped")
    return 0


@contextmanager
def _opened(directory: Path) -> Iterator[tuple[Store, Writer]]:
    store = open_sqlite(directory / "moorage.db")
    writer = Writer(store)
    try:
        yield store, writer
    finally:
        writer.close()
        store.close()


def _assemble(
    options: Options, directory: Path, store: Store, writer: Writer
) -> tuple[Services, str]:
    """The parts of the server, and the token of its user."""
    import moorage

    chosen = settings.load(options.home)
    user = _account()
    secret = tokens.read_or_make(directory / "token", "user")
    known = (
        _admit(store, writer, secret, "user", user),
        _admit(
            store,
            writer,
            tokens.read_or_make(options.home / "agent" / "token", "node"),
            "node",
            NODE_LABEL,
        ),
    )
    services = Services(
        engine=boot.start(store, writer, moorage.__version__),
        blobs=Blobs(directory, store, writer, upload_limit=chosen.upload_limit),
        settings=chosen,
        tokens=known,
        user=user,
        version=moorage.__version__,
        started_at=time.time(),
        loopback=True,
    )
    return services, secret


def _account() -> str:
    """The user's name; the number where it has none, as in many containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _admit(store: Store, writer: Writer, secret: str, kind: Kind, subject: str) -> KnownToken:
    """Let the holder of this token in, and nobody with an older one of the same subject."""
    digest = tokens.digest(secret)
    hashes = {
        row["hash"]
        for row in store.read("tokens")
        if (row["kind"], row["subject"]) == (kind, subject)
    }
    batch = [Statement("delete_token", {"hash": old}) for old in hashes - {digest}]
    if digest not in hashes:
        row = {"hash": digest, "kind": kind, "subject": subject, "created_at": time.time()}
        batch.append(Statement("insert_token", {**row, "server": ""}))
    if batch:
        writer.submit(batch).result()
    return KnownToken(digest, Principal(kind, subject))


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


def tell(home: Path, url: str, secret: str) -> None:
    """Write where this server is, and how its user may talk to it."""
    address = {"url": url, "pid": os.getpid(), "token": secret}
    tokens.write_secret(home / "server.json", msgspec.json.encode(address).decode() + "\n")


def _announce(options: Options, url: str) -> None:
    _log.info("serving %s at %s (pid %d)", options.home, url, os.getpid())
    if options.ready_fd is not None:
        with suppress(OSError):  # whoever waited has gone
            os.write(options.ready_fd, b"ready\n")
            os.close(options.ready_fd)


async def _until_told(options: Options, url: str, services: Services, stop: asyncio.Event) -> None:
    """Work until a signal comes or the engine fails."""
    engine = services.engine
    log_limit = ["--log-limit", str(services.settings.log_limit)]
    backend = LocalBackend(options.home, options=log_limit)
    chores = [asyncio.ensure_future(_collect_daily(services))]
    if options.with_node:
        chores.append(asyncio.ensure_future(backend.run(url)))
    for chore in chores:
        chore.add_done_callback(_report_crash)
    ends = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(engine.stopped.wait())]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        _log.info("stopping")
        for task in (*ends, *chores):
            task.cancel()
        await asyncio.gather(*ends, *chores, return_exceptions=True)
        await backend.stop()
        engine.close()  # followers must end before the listener, which waits for them


def _report_crash(chore: asyncio.Future[None]) -> None:
    if not chore.cancelled() and chore.exception() is not None:
        _log.error("a chore of the server failed", exc_info=chore.exception())


async def _collect_daily(services: Services) -> None:
    while True:
        await asyncio.sleep(COLLECT_EVERY)
        try:
            freed = await asyncio.to_thread(
                services.blobs.collect, services.engine.clock(), services.settings.blob_grace
            )
        except MoorageError as error:
            _log.error("content could not be collected: %s", error)
        else:
            _log.info("collected %d blobs, %d bytes", freed.blobs, freed.bytes)
