"""Ports of a job on the user's own machine, for as long as the run is attached."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from moorage.cli.client import Client
from moorage.cli.render import say
from moorage.cli.streaming import open_stream, relay
from moorage.cli.websocket import Closed
from moorage.errors import MoorageError
from moorage.protocol import streams
from moorage.protocol.api import RunRef
from moorage.specs.fleet import LOCAL
from moorage.specs.ports import Port

_HERE = "127.0.0.1"
_TAKEN = (errno.EADDRINUSE, errno.EACCES)
"""EACCES: a port below 1024, which is not everybody's."""


@contextmanager
def forwarding(
    client: Client, run: RunRef, ports: Sequence[Port], rank: int = 0
) -> Iterator[None]:
    """Within the block, each connection to one of the ports is a stream to the job, as soon as it
    is known where that runs. A port of this machine's own node needs no stream: it is here."""
    if not ports:
        yield
        return
    ends = _Ends()
    work = (client, run, ports, rank, ends)
    threading.Thread(target=_forward, args=work, daemon=True).start()
    try:
        yield
    finally:
        ends.close()


class _Ends:
    """The listeners, which end together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[socket.socket] | None = []

    def add(self, listener: socket.socket) -> bool:
        """False where all has ended."""
        with self._lock:
            if self._open is not None:
                self._open.append(listener)
                return True
        listener.close()
        return False

    def close(self) -> None:
        with self._lock:
            listeners, self._open = self._open or [], None
        for listener in listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in `accept`
            listener.close()


def _forward(client: Client, run: RunRef, ports: Sequence[Port], rank: int, ends: _Ends) -> None:
    """On a thread of its own, which ends with the program."""
    with suppress(MoorageError), Client(home=client.home) as own:
        here = own.address.pid is not None and _is_here(own, run, rank)
        for port in ports:
            if here and port.outside in (None, port.inside):
                say(f"http://{_HERE}:{port.inside} is port {port.inside} of {run.name}")
                continue
            listener = _listen(port, run.name)
            if not ends.add(listener):
                return
            arguments = (client, str(run.id), port.inside, rank, listener)
            threading.Thread(target=_serve, args=arguments, daemon=True).start()


def _is_here(client: Client, run: RunRef, rank: int) -> bool:
    """Are the job's ports this machine's own? Waits until it runs anywhere; where it ended before
    that, nothing is to be forwarded."""
    for event in client.events(since=0, run=run.id, follow=True):
        if event.kind in ("job.starting", "job.running", "run.ended"):
            break
    view = client.run(run.id)
    if view.spec.docker:  # it has a network of its own
        return False
    attempts = [attempt for job in view.jobs for attempt in job.attempts if attempt.rank == rank]
    names = {attempts[-1].node} if attempts else set()
    return any(node.name in names and node.fleet == LOCAL for node in client.nodes())


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
