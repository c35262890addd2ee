"""The server's own store from another machine: a port here, each connection to which the server
leads to the store."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from msgspec.structs import replace

from moorage.cli.client import Client
from moorage.cli.streaming import relay
from moorage.cli.websocket import Closed, open_websocket
from moorage.errors import MoorageError
from moorage.protocol.relays import PATH
from moorage.protocol.stores import EMBEDDED
from moorage.specs.stores.record import Access

_HERE = "127.0.0.1"


def reached(client: Client, access: Access) -> Access:
    """The same store as this machine reaches it; the port lasts until the program ends."""
    if access.kind != EMBEDDED or client.address.pid is not None:
        return access
    listener = socket.create_server((_HERE, 0), backlog=128)
    threading.Thread(target=_serve, args=(client, listener), daemon=True).start()
    return replace(access, endpoint=f"http://{_HERE}:{listener.getsockname()[1]}")


def _serve(client: Client, listener: socket.socket) -> None:
    while True:
        near, _ = listener.accept()
        threading.Thread(target=_carry, args=(client, near), daemon=True).start()


def _carry(client: Client, near: socket.socket) -> None:
    """One connection. Where the server cannot be reached it just ends: whoever asked tries again,
    and tells why it failed in the end."""
    with near, suppress(MoorageError, Closed, OSError):
        server = open_websocket(client.transport, PATH)
        near.setblocking(False)
        try:
            relay(server, near.fileno(), near.fileno())
        finally:
            server.close()
