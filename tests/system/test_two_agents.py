"""Two agents under one name: what the server knows of a node must be of one machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from moorage import Client
from moorage.engine.testing import hello
from moorage.protocol.agent import Beat, Hello, encode
from moorage.server.routes.agent import AGENT_PATH, POLICY
from system.servers import Server, serving

PATIENCE = 60.0


@contextmanager
def greeted(server: Server, greeting: Hello) -> Iterator[ClientConnection]:
    """A connection on which this was said."""
    url = server.url.replace("http", "ws", 1) + AGENT_PATH
    headers = {"Authorization": f"Bearer {server.node_token}"}
    with connect(url, additional_headers=headers, compression=None, proxy=None) as socket:
        socket.send(encode(greeting))
        yield socket


def test_another_machine_under_the_name_of_one_that_is_connected_is_refused(
    tmp_path: Path,
) -> None:
    first, other = hello("twin", boot_id="boot-1"), hello("twin", boot_id="boot-2")
    with serving(tmp_path) as server:
        with greeted(server, first) as socket:
            socket.recv(PATIENCE)
            with greeted(server, other) as second, pytest.raises(ConnectionClosed) as refused:
                second.recv(PATIENCE)
            assert refused.value.rcvd is not None
            assert refused.value.rcvd.code == POLICY
            assert "another machine is connected as node twin" in refused.value.rcvd.reason
            socket.send(encode(Beat(1)))
            assert socket.recv(PATIENCE), "the first is still there"
        with Client(server.url, server.token, server.home) as client:
            for event in client.events(since=1, follow=True):
                if event.kind == "node.down":
                    break
        with greeted(server, other) as again:
            assert again.recv(PATIENCE), "one that was booted again is let in"


def test_the_same_machine_replaces_its_own_older_connection(tmp_path: Path) -> None:
    greeting = hello("twin")
    with serving(tmp_path) as server, greeted(server, greeting) as old:
        old.recv(PATIENCE)
        with greeted(server, msgspec.structs.replace(greeting, version="next")) as new:
            assert new.recv(PATIENCE)
            with pytest.raises(ConnectionClosed):
                while True:
                    old.recv(PATIENCE)
