"""Blobs from the server: one request, one pack as its bytes arrive."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import msgspec

from moorage.agent.uplink.addresses import LOOPBACK, Addresses
from moorage.data.base import SourceError
from moorage.data.stopping import breaking
from moorage.decoding import from_json
from moorage.ids import Digest
from moorage.loopback import stranger
from moorage.protocol.api import ErrorBody, FetchRequest

_PATH = "/v1/blobs/fetch"
_PIECE = 1024 * 1024
_TIMEOUT = 60.0  # seconds without a single byte
PAUSES = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between the first rounds among the servers; the last one is repeated."""
PATIENCE = 900.0
"""Seconds without a byte after which a job's files count as out of reach: a server that is
restarted, or upgraded, must not fail the jobs whose data is on its way."""


class Broken(Exception):
    """This server will not do; another may."""


class Download:
    """Asks the servers in turn with the node's token, which is read anew each time: it may be
    replaced. A pack has the same bytes wherever and whenever it is asked for, so one that breaks
    off goes on at the next server, or at the same one, at the byte that was reached."""

    def __init__(self, addresses: Addresses, token: Path, patience: float = PATIENCE) -> None:
        self._addresses = addresses
        self._token = token
        self._patience = patience

    def __call__(self, digests: Sequence[Digest]) -> Iterator[bytes]:
        """The bytes of a pack of these blobs. SourceError, also halfway."""
        body = msgspec.json.encode(FetchRequest(list(digests)))
        given = 0
        rounds, since = 0, time.monotonic()
        stopped = threading.Event()
        with breaking(stopped.set):
            while True:
                for url in self._addresses.known:
                    before = given
                    try:
                        for piece in self._pieces(url, body, given):
                            given += len(piece)
                            yield piece
                        return
                    except (Broken, OSError, http.client.HTTPException) as error:
                        reason = str(error) or type(error).__name__
                    if given > before:
                        rounds, since = 0, time.monotonic()
                if stopped.is_set() or time.monotonic() - since >= self._patience:
                    raise SourceError(f"files cannot be fetched from {url}: {reason}")
                stopped.wait(PAUSES[min(rounds, len(PAUSES) - 1)])
                rounds += 1

    def _pieces(self, url: str, body: bytes, skip: int) -> Iterator[bytes]:
        """What one server gives, after the first `skip` bytes. Broken, OSError, HTTPException
        where another one may do better."""
        parts = urlsplit(url)
        connection = connect(parts, self._addresses.trust(url))
        try:
            connection.connect()
            recognize(connection, parts, self._addresses.owner)
            with breaking(lambda: shut(connection)):
                response = self._ask(connection, parts.path, body)
                while piece := response.read1(_PIECE):
                    fresh = piece[skip:]
                    skip = max(0, skip - len(piece))
                    if fresh:
                        yield fresh
                if response.length:  # announced, but cut off: read1 does not call it an error
                    raise Broken("the connection broke")
        finally:
            connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, prefix: str, body: bytes
    ) -> http.client.HTTPResponse:
        headers = {
            "Authorization": f"Bearer {self._token.read_text().strip()}",
            "Content-Type": "application/json",
        }
        connection.request("POST", prefix.rstrip("/") + _PATH, body, headers)
        response = connection.getresponse()
        if response.status == 200:
            return response
        message = message_of(response.read(65536))
        if response.status == 503:
            raise Broken(f"it says: {message}")
        raise SourceError(
            f"the server refuses the job's files (status {response.status}): {message}"
        )


def connect(parts: SplitResult, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
    host, port = parts.hostname or "", parts.port
    if tls is not None:
        return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=tls)
    return http.client.HTTPConnection(host, port, timeout=_TIMEOUT)


def recognize(
    connection: http.client.HTTPConnection, parts: SplitResult, owner: int | None
) -> None:
    """Broken where the port of a server on this machine is another user's by now."""
    if parts.hostname in LOOPBACK and (reason := stranger(connection.sock, owner)) is not None:
        raise Broken(f"{reason}, and is not told the token")


def shut(connection: http.client.HTTPConnection) -> None:
    """Wake whoever reads from it."""
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


def message_of(body: bytes) -> str:
    """What an error's body says to people."""
    try:
        return from_json(body, ErrorBody).message
    except msgspec.MsgspecError:
        return body[:200].decode(errors="replace").strip() or "no reason given"
