"""A process that leads this node's connections to the embedded store through the server. It
outlives the agent, as mounts do, and ends by itself when nothing on this node needs it.

    python -m moorage.agent.uplink.relayend --home DIR --port P (--server URL,... | --tunnel FILE)
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from moorage.agent.uplink.addresses import Addresses
from moorage.agent.uplink.dialling import dial
from moorage.agent.uplink.tunnel import TunnelEnd
from moorage.data.relay import Relay
from moorage.protocol.relays import PATH

LOCK = "relay"
"""In the agent's home: held (flock) as long as it lives; contains its pid and its port."""
IDLE = 600.0
"""Seconds without a connection after which it ends, if no attempt has a mount."""

log = logging.getLogger("moorage.relay")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until it is not needed, or SIGTERM; the exit code."""
    options = _options(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("websockets").setLevel(logging.ERROR)
    home: Path = options.home
    lock = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0  # another one was quicker, and does as well
    return asyncio.run(_serve(options, home, lock))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="moorage-relay")
    parser.add_argument("--home", required=True, type=Path, help="the agent's")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--server", default="")
    parser.add_argument("--tunnel", type=Path)
    parser.add_argument("--ca", type=Path)
    parser.add_argument("--ready-fd", type=int, default=-1)
    return parser.parse_args(arguments)


async def _serve(options: argparse.Namespace, home: Path, lock: int) -> int:
    leaving = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leaving.set)
    addresses = (
        TunnelEnd(options.tunnel)
        if options.tunnel is not None
        else Addresses(options.server.split(","), home / "servers", options.ca)
    )
    relay = Relay(Dialler(addresses, home / "token"))
    port = await relay.listen(options.port)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()} {port}\n".encode(), 0)
    if options.ready_fd >= 0:
        with suppress(OSError):  # whoever waited has gone
            os.write(options.ready_fd, b"ready\n")
            os.close(options.ready_fd)
    log.info("the embedded store is at 127.0.0.1:%d", port)
    signalled = asyncio.ensure_future(leaving.wait())
    unneeded = asyncio.ensure_future(_unneeded(relay, home))
    await asyncio.wait((signalled, unneeded), return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    unneeded.cancel()
    await relay.close()
    return 0


class Dialler:
    """Tries the servers in turn."""

    def __init__(self, addresses: Addresses, token: Path) -> None:
        self._addresses, self._token = addresses, token

    async def __call__(self) -> ClientConnection:
        """See `data.relay.Dial`."""
        try:
            return await dial(self._addresses, self._token, PATH, pings=False)
        except (OSError, WebSocketException):
            self._addresses.next()
            raise


async def _unneeded(relay: Relay, home: Path) -> None:
    """Returns after a while without a connection, in which no job had a mount."""
    while True:
        await relay.idle.wait()
        await asyncio.sleep(IDLE)
        if relay.idle.is_set() and not has_mounts(home):
            return


def has_mounts(home: Path) -> bool:
    """Whether something on this node may still want to reach a store."""
    return any((home / "attempts").glob("*/mounts/*")) or any((home / "unflushed").glob("*"))


if __name__ == "__main__":
    sys.exit(main())
