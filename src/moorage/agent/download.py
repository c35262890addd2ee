"""Blobs from the server: one request, one pack as its bytes arrive."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from moorage.data.base import SourceError
from moorage.data.stopping import breaking
from moorage.ids import Digest
from moorage.protocol.api import ErrorBody, FetchRequest

_PATH = "/v1/blobs/fetch"
_PIECE = 1024 * 1024
_TIMEOUT = 60.0  # seconds without a single byte


class Download:
    """Asks `url` with the node's token, which is read anew each time: it may be replaced."""

    def __init__(self, url: str, token: Path) -> None:
        self._parts = urlsplit(url)
        self._token = token

    def __call__(self, digests: Sequence[Digest]) -> Iterator[bytes]:
        """The bytes of a pack of these blobs. SourceError, also halfway."""
        connection = self._connect()
        try:
            connection.connect()
            with breaking(lambda: _shut(connection)):
                yield from self._pieces(connection, digests)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise SourceError(f"files cannot be fetched from {self._where}: {reason}") from None
        finally:
            connection.close()

    @property
    def _where(self) -> str:
        return f"{self._parts.scheme}://{self._parts.netloc}"

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme in ("https", "wss"):
            tls = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=tls)
        return http.client.HTTPConnection(host, port, timeout=_TIMEOUT)

    def _pieces(
        self, connection: http.client.HTTPConnection, digests: Sequence[Digest]
    ) -> Iterator[bytes]:
        headers = {
            "Authorization": f"Bearer {self._token.read_text().strip()}",
            "Content-Type": "application/json",
        }
        body = msgspec.json.encode(FetchRequest(list(digests)))
        connection.request("POST", self._parts.path.rstrip("/") + _PATH, body, headers)
        response = connection.getresponse()
        if response.status != 200:
            raise SourceError(
                f"the server refuses the job's files (status {response.status}): "
                f"{_message(response.read(65536))}"
            )
        while piece := response.read1(_PIECE):
            yield piece


def _shut(connection: http.client.HTTPConnection) -> None:
    """Wake whoever reads from it."""
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


def _message(body: bytes) -> str:
    """What an error's body says to people."""
    try:
        return msgspec.json.decode(body, type=ErrorBody).message
    except msgspec.MsgspecError:
        return body[:200].decode(errors="replace").strip() or "no reason given"
