"""HTTP to one server: kept-alive connections, msgspec bodies, errors as `moorage.errors`.

The standard library's client is blocking on purpose: a signal interrupts it wherever it is, and
importing it costs a third of what the asynchronous libraries cost.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from moorage.cli.home import Address
from moorage.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    MoorageError,
    NotFound,
    Unavailable,
    Unreachable,
)
from moorage.loopback import stranger
from moorage.protocol.api import ErrorBody

T = TypeVar("T")
Query = Mapping[str, str | int | float | bool | None]

JSON = "application/json"
BYTES = "application/octet-stream"
REPLY_TIMEOUT = 120.0
"""Seconds; the longest honest wait is `GET .../wait` with 60."""
STALE = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)
"""How a server that closed an idle connection looks; RemoteDisconnected is one of them."""


class Transport:
    """Requests to one server; safe to use from several threads at once."""

    def __init__(
        self, address: Address, relocate: Callable[[], Address | None] | None = None
    ) -> None:
        self._relocate = relocate
        """Where the server is now, asked when nobody answers: a restart may change the port."""
        self._move_to(address)
        self._idle: list[HTTPConnection] = []

    def _move_to(self, address: Address) -> None:
        self.address = address
        parts = urlsplit(address.url)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port
        self._tls = parts.scheme == "https"
        self._prefix = parts.path

    def close(self) -> None:
        """Close the idle connections; the transport can still be used."""
        while self._idle:
            self._idle.pop().close()

    def connect(self) -> None:
        """Open the connection that the first request will use; Unreachable if nobody listens."""
        if not self._idle:
            self._idle.append(self._open())

    def call(
        self,
        method: str,
        path: str,
        reply: type[T],
        *,
        body: object = None,
        query: Query | None = None,
        media: str = JSON,
    ) -> T:
        """One request with a decoded reply. `body` is bytes, or anything that msgspec encodes."""
        content = body if isinstance(body, bytes) else b""
        if body is not None and not isinstance(body, bytes):
            content = msgspec.json.encode(body)
        connection, response = self._exchange(method, path, query, content, media)
        data = self._read_all(connection, response)
        try:
            return msgspec.json.decode(data, type=reply)
        except msgspec.DecodeError as error:
            raise Unavailable(
                f"the server at {self.address.place} sent a reply that this version of moorage "
                f"cannot read ({error}); upgrade the older of the two"
            ) from None

    def stream(
        self, path: str, *, query: Query | None = None, patience: float | None = None
    ) -> Stream:
        """One GET whose reply lasts: read it with `for chunk in stream`, then close it. Silence
        for longer than `patience` seconds breaks it."""
        connection, response = self._exchange("GET", path, query, b"", JSON)
        if connection.sock is not None:
            connection.sock.settimeout(patience)
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return Stream(connection, response)

    def _exchange(
        self, method: str, path: str, query: Query | None, body: bytes, media: str
    ) -> tuple[HTTPConnection, HTTPResponse]:
        while True:
            reused = bool(self._idle)
            connection = self._idle.pop() if reused else self._open()
            headers = {"Authorization": f"Bearer {self.address.token}", "Accept": "*/*"}
            if body:
                headers["Content-Type"] = media
            try:
                target = self._prefix + path + query_string(query)
                connection.request(method, target, body or None, headers)
                response = connection.getresponse()
                break
            except STALE as error:
                connection.close()
                if not reused:
                    raise self._unreachable(error) from None
            except (OSError, HTTPException) as error:
                connection.close()
                raise self._unreachable(error) from None
            except BaseException:  # Ctrl-C: half a reply would be taken for the next one
                connection.close()
                raise
        if response.status >= 400:
            refusal = error_of(response.status, self._read_all(connection, response))
            if isinstance(refusal, Forbidden) and not self.address.token:
                raise Forbidden(f"{self.address.url} wants a token; set MOORAGE_TOKEN")
            raise refusal
        return connection, response

    def _read_all(self, connection: HTTPConnection, response: HTTPResponse) -> bytes:
        try:
            data = response.read()
        except (OSError, HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from None
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:
            self._idle.append(connection)
        return data

    def _open(self) -> HTTPConnection:
        connection = self._connection()
        try:
            connection.connect()
            self._recognize(connection)
        except OSError as error:
            connection.close()
            moved = self._relocate() if self._relocate else None
            if moved is None or moved.url == self.address.url:
                raise self._unreachable(error) from None
        else:
            return connection
        self._move_to(moved)
        return self._open()

    def _recognize(self, connection: HTTPConnection) -> None:
        """OSError where the port of this user's own server is somebody else's by now."""
        if self.address.pid is None:
            return
        reason = stranger(connection.sock)
        if reason is not None:
            raise ConnectionRefusedError(reason)

    def _connection(self) -> HTTPConnection:
        if not self._tls:
            return HTTPConnection(self._host, self._port, timeout=REPLY_TIMEOUT)
        from http.client import HTTPSConnection

        return HTTPSConnection(self._host, self._port, timeout=REPLY_TIMEOUT)

    def _unreachable(self, error: Exception) -> Unreachable:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unreachable(f"no server answers at {self.address.url}: {reason}")


class Stream:
    """The bytes of a reply that lasts, as they come; ends when the server ends it.

    Iteration raises Unreachable when the connection breaks instead. A context manager.
    """

    def __init__(self, connection: HTTPConnection, response: HTTPResponse) -> None:
        self._connection = connection
        self._response = response

    def header(self, name: str) -> str | None:
        """A header of the reply."""
        return self._response.getheader(name)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                chunk = self._response.read1(65_536)
            except (OSError, HTTPException, ValueError) as error:
                # ValueError: http.client met the end of the connection inside a chunk's length
                raise Unreachable(f"the connection broke: {error}") from None
            if not chunk:
                return
            yield chunk

    def close(self) -> None:
        """End the request; the server notices and stops."""
        self._response.close()
        self._connection.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def segment(value: object) -> str:
    """A value as one part of a path."""
    return quote(str(value), safe="")


def query_string(query: Query | None) -> str:
    """`?a=1&b=x`, without what is None; flags as 0 and 1."""
    pairs = [
        (key, int(value) if isinstance(value, bool) else value)
        for key, value in (query or {}).items()
        if value is not None
    ]
    return "?" + urlencode(pairs) if pairs else ""


def error_of(status: int, data: bytes) -> MoorageError:
    """The exception that a reply with a status of 400 or more stands for."""
    try:
        body = msgspec.json.decode(data, type=ErrorBody)
    except msgspec.DecodeError:
        return Unavailable(
            f"HTTP status {status} came without a reason: is that a moorage server? "
            "see MOORAGE_URL, and what stands between"
        )
    kinds: tuple[type[MoorageError], ...] = (Forbidden, NotFound, Unavailable)
    for kind in kinds:
        if body.code == kind.code:
            return kind(body.message)
    problems = body.problems or [body.message]
    if body.code == Conflict.code:
        return Conflict(*problems)
    if body.code == InvalidInput.code:
        return InvalidInput(*problems)
    return MoorageError(body.message)
