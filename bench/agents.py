"""A thousand nodes at one server: its memory, its CPU while nothing happens, and how long until
all are back after it was killed. The agents are one process here that speaks the protocol."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from idle import agent, cpu
from table import show
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from system.servers import Server, serving

AGENTS = 1000
AT_ONCE = 100
"""Connections that are being made at a time: real nodes are as many processes, this is one."""
QUIET = 15.0


def resident(server: Server) -> float:
    """MiB of memory that the server has in use."""
    assert server.process is not None
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


async def all_of_them(server: Server) -> list[ClientConnection]:
    """Every agent connected and welcome; each tries again until it is, as the real ones do."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> ClientConnection:
        async with places:
            while True:
                try:
                    return await agent(server, number)
                except (OSError, WebSocketException):
                    await asyncio.sleep(0.1)

    return await asyncio.gather(*(one(number) for number in range(AGENTS)))


async def measure(server: Server) -> list[tuple[str, str]]:
    """Connect, be quiet, lose the server, come back."""
    bare = resident(server)
    began = time.monotonic()
    sockets = await all_of_them(server)
    first = time.monotonic() - began
    used, since = cpu(server), time.monotonic()
    await asyncio.sleep(QUIET)
    share = (cpu(server) - used) / (time.monotonic() - since) * 100
    full = resident(server)
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    await asyncio.gather(*(socket.wait_closed() for socket in sockets))
    began = time.monotonic()
    await asyncio.to_thread(server.start)
    started = time.monotonic() - began
    sockets = await all_of_them(server)
    back = time.monotonic() - began
    await asyncio.gather(*(socket.close() for socket in sockets))
    return [
        (f"{AGENTS:,} agents", ""),
        ("all connected after, s", f"{first:.1f}"),
        ("server's memory before and with them, MiB", f"{bare:.0f}, {full:.0f}"),
        ("server's CPU with all connected, % of a core", f"{share:.2f}"),
        ("after kill -9: server answers, s", f"{started:.1f}"),
        ("after kill -9: all are back, s", f"{back:.1f}"),
    ]


def main() -> None:
    """A server without a node of its own."""
    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as home, serving(Path(home)) as one:
        rows = asyncio.run(measure(one))
    show("agents", rows)


if __name__ == "__main__":
    main()
