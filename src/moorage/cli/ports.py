"""Ports of a job on the user's own machine, for as long as the run is attached."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from moorage.cli.client import Client
from moorage.cli.render import say
from moorage.cli.streaming import open_stream, relay
from moorage.cli.websocket import Closed
from moorage.errors import MoorageError
from moorage.protocol import streams
from moorage.protocol.api import RunRef
from moorage.specs.ports import Port

_HERE = "127.0.0.1"
_TAKEN = (errno.EADDRINUSE, errno.EACCES)
"""EACCES: a port below 1024, which is not everybody's."""


@contextmanager
def forwarding(
    client: Client, run: RunRef, ports: Sequence[Port], rank: int = 0
) -> Iterator[None]:
    """Within the block, each connection to one of the ports is a stream to the job."""
    with ExitStack() as undo:
        for port in ports:
            listener = undo.enter_context(_listen(port, run.name))
            undo.callback(listener.shutdown, socket.SHUT_RDWR)  # wakes who waits in `accept`
            arguments = (client, str(run.id), port.inside, rank, listener)
            threading.Thread(target=_serve, args=arguments, daemon=True).start()
        yield


def _listen(port: Port, run: str) -> socket.socket:
    """The port that is wanted, or another one where it is taken; says which."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    why = ""
    try:
        listener.bind((_HERE, port.outside or 0))
    except OSError as error:
        if error.errno not in _TAKEN:
            listener.close()
            raise
        reason = "is taken" if error.errno == errno.EADDRINUSE else "is root's"
        why = f" (port {port.outside} of this machine {reason})"
        listener.bind((_HERE, 0))
    listener.listen(64)
    say(f"http://{_HERE}:{listener.getsockname()[1]} is port {port.inside} of {run}{why}")
    return listener


def _serve(client: Client, run: str, port: int, rank: int, listener: socket.socket) -> None:
    told: set[str] = set()
    while True:
        try:
            near, _ = listener.accept()
        except OSError:  # the run is not attached any more
            return
        arguments = (client, run, port, rank, near, told)
        threading.Thread(target=_carry, args=arguments, daemon=True).start()


def _carry(
    client: Client, run: str, port: int, rank: int, near: socket.socket, told: set[str]
) -> None:
    """One connection; why it does not work is said once."""
    with near:
        try:
            server, _ = open_stream(client, run, streams.Port(port), rank=rank)
        except MoorageError as error:
            if str(error) not in told:
                told.add(str(error))
                say(f"port {port}: {error}")
            return
        near.setblocking(False)
        with suppress(Closed, BrokenPipeError):
            relay(server, near.fileno(), near.fileno())
        server.close()
