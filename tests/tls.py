"""A TLS listener of an authority that is made for a test."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from moorage.server.authority import make_authority
from moorage.server.certificates import Own


@contextmanager
def tls_listener(address: str, authority: str = "") -> Iterator[tuple[int, str]]:
    """Greets whoever connects to `address`; its port, and the certificate to trust."""
    own = Own(authority or make_authority("test", time.time()), [address])

    def greet(listening: socket.socket) -> None:
        with suppress(OSError):  # closed: the end
            while True:
                connection, _ = listening.accept()
                with connection, suppress(OSError):
                    own.context().wrap_socket(connection, server_side=True).close()

    with socket.create_server((address, 0)) as listening:
        greeting = threading.Thread(target=greet, args=(listening,))
        greeting.start()
        try:
            yield listening.getsockname()[1], own.ca
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            greeting.join()
