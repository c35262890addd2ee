"""Asks the server for blobs over HTTP."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import msgspec

from moorage.data.base import SourceError
from moorage.ids import Digest
from moorage.protocol.api import ErrorBody, FetchRequest

_PIECE = 256 * 1024
_TIMEOUT = 120.0
"""Seconds without a byte after which the server counts as gone."""


class HttpFetch:
    """`blobs.Fetch` from the server at `url` with a node token. Each call has a connection of its
    own, so threads may share it."""

    def __init__(self, url: str, token: str, *, timeout: float = _TIMEOUT) -> None:
        parts = urlsplit(url)
        self._url = url
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port
        self._path = parts.path.rstrip("/")
        self._token = token
        self._timeout = timeout

    def __call__(self, digests: Sequence[Digest]) -> Iterator[bytes]:
        """The bytes of one pack with these blobs. SourceError where it cannot be had."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout)
        try:
            body = msgspec.json.encode(FetchRequest(list(digests)))
            headers = {
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
            }
            connection.request("POST", f"{self._path}/v1/blobs/fetch", body, headers)
            response = connection.getresponse()
            if response.status != 200:
                raise SourceError(f"the server refused the files: {_reason(response)}")
            while piece := response.read1(_PIECE):
                yield piece
            if response.length:  # http.client ends a body that was cut short without a word
                raise http.client.IncompleteRead(b"", response.length)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise SourceError(f"no files from the server at {self._url}: {reason}") from None
        finally:
            connection.close()


def _reason(response: http.client.HTTPResponse) -> str:
    body = response.read(64 * 1024)
    try:
        return msgspec.json.decode(body, type=ErrorBody).message
    except msgspec.DecodeError:
        return f"{response.status} {response.reason}"
