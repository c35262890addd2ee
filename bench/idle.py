"""CPU of the server while nothing happens: agents connected, runs followed, nobody says a word."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

from table import show
from websockets.asyncio.client import ClientConnection, connect

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from moorage.engine.testing import hello
from moorage.protocol.agent import encode
from system.servers import Server, serving

AGENTS = 100
FOLLOWERS = 50
SECONDS = 25.0
"""Longer than the time between two keepalives of a connection."""
_TICK = os.sysconf("SC_CLK_TCK")


async def agent(server: Server, number: int) -> ClientConnection:
    """Connect as the product's agent does, and be welcome."""
    socket = await connect(
        server.url.replace("http", "ws", 1) + "/v1/agent",
        additional_headers={"Authorization": f"Bearer {server.node_token}"},
        compression=None,
        proxy=None,
    )
    await socket.send(encode(hello(f"node-{number}")))
    await socket.recv()
    return socket


async def follower(server: Server, run: int) -> asyncio.StreamWriter:
    """`logs -f` of a job that prints nothing."""
    host, port = server.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    path = f"/v1/runs/{run}/logs?follow=1"
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {server.token}\r\n\r\n"
    writer.write(head.encode())
    return writer


def cpu(server: Server) -> float:
    """Seconds of CPU that the server has used."""
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


async def share(server: Server) -> float:
    """Percent of a core, over a while."""
    await asyncio.sleep(1)
    before, began = cpu(server), time.monotonic()
    await asyncio.sleep(SECONDS)
    return (cpu(server) - before) / (time.monotonic() - began) * 100


async def measure(server: Server) -> list[tuple[str, str]]:
    """First the bare server, then with agents, then with followers as well."""
    rows = [("", "server, % of a core"), ("nobody connected", f"{await share(server):.2f}")]
    async with contextlib.AsyncExitStack() as stack:
        for number in range(AGENTS):
            socket = await agent(server, number)
            stack.push_async_callback(socket.close)
        rows.append((f"{AGENTS} agents", f"{await share(server):.2f}"))
        run = await asyncio.to_thread(server.submit)
        for _ in range(FOLLOWERS):
            stack.callback((await follower(server, run)).close)
        text = f"{AGENTS} agents, {FOLLOWERS} x logs -f"
        rows.append((text, f"{await share(server):.2f}"))
    return rows


def main() -> None:
    """A server without a node of its own."""
    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as home, serving(Path(home)) as one:
        rows = asyncio.run(measure(one))
    show("idle", rows)


if __name__ == "__main__":
    main()
