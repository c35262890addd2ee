"""Ports of a job, on the loopback of the network that its main process sees: the node's, or its
own (`docker: true`)."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

from moorage.agent import mainprocess
from moorage.agent.sandbox import mounting
from moorage.errors import Conflict

PIECE = 131_072
"""Bytes of a message."""
_OWN = (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6))
_CLONE_NEWNET = 0x40000000
_PATIENCE = 10.0

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(directory: Path, port: int, own: bool) -> Ends:
    """To what listens there. `directory`: the attempt's; `own`: it has a network of its own.
    Conflict."""
    network = _network(directory) if own else -1
    try:
        for host, family in _OWN:
            with suppress(OSError, mounting.MountError):
                connected = await asyncio.to_thread(_dial, network, (host, port), family)
                return await asyncio.open_connection(sock=connected, limit=PIECE)
    finally:
        if network >= 0:
            os.close(network)
    raise Conflict(f"nothing listens on port {port} of the job")


def _network(directory: Path) -> int:
    pid = mainprocess.living(directory)
    with suppress(OSError):
        network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if mainprocess.living(directory) == pid:
            return network
        os.close(network)  # of whoever has that number now
    raise Conflict("the job's process has ended")


def _dial(network: int, address: tuple[str, int], family: socket.AddressFamily) -> socket.socket:
    """OSError, MountError."""
    if network < 0:
        return _dialled(address, family)
    found: list[socket.socket] = []
    wrong: list[Exception] = []

    def visit() -> None:
        # A thread of its own, which ends in there: no other work may get it.
        try:
            mounting.enter(network, _CLONE_NEWNET)
            found.append(_dialled(address, family))
        except (OSError, mounting.MountError) as error:
            wrong.append(error)

    thread = threading.Thread(target=visit)
    thread.start()
    thread.join()
    if wrong:
        raise wrong[0]
    return found[0]


def _dialled(address: tuple[str, int], family: socket.AddressFamily) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.settimeout(_PATIENCE)
        made.connect(address)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
