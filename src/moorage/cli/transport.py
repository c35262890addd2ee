"""HTTP to one server: kept-alive connections, msgspec bodies, errors as `moorage.errors`.

The standard library's client is blocking on purpose: a signal interrupts it wherever it is, and
importing it costs a third of what the asynchronous libraries cost.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from select import select
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec.structs import replace

from moorage.cli.home import LOOPBACK, Address
from moorage.decoding import from_json
from moorage.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    MoorageError,
    NotFound,
    Problem,
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
PATIENCE = 30.0
"""Seconds for which a server is looked for among several."""
SILENCE = 30.0
"""Seconds without a byte after which one of several servers is left: it may be frozen."""
HUSH = 5.0
"""Seconds without an answer after which somebody who waits for it is told."""
_DIAL_TIMEOUT = 4.0
_DELAYS = (0.1, 0.2, 0.4, 0.8, 1.6, 2.0)
_NOT_LEADING = "Moorage-Not-Leading"
"""On a refusal: nothing was done, another server may."""


class _Setback(Exception):
    """One server did not answer, or not with an answer."""

    def __init__(self, error: MoorageError, *, done: bool, passing: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.done = done
        """It may have carried the request out."""
        self.passing = passing
        """It said that it will be better soon."""


class Transport:
    """Requests to one server; safe to use from several threads at once."""

    def __init__(
        self, address: Address, relocate: Callable[[], Address | None] | None = None
    ) -> None:
        self._relocate = relocate
        """Where the server is now, asked when nobody answers: a restart may change the port."""
        self._home = address
        self._idle: list[HTTPConnection] = []
        self.address = address
        """The server that is asked at present, and the others."""
        self.on_silence: Callable[[], None] | None = None
        """Called once, where an answer is long in coming."""

    @property
    def several(self) -> bool:
        """Whether another server can be asked."""
        return bool(self.address.others)

    def leave(self, url: str) -> None:
        """The server at `url` does not answer: ask the next one from now on."""
        first, *others = (self.address.url, *self.address.others)
        if others and first == url:
            pid = self._home.pid if others[0] == self._home.url else None
            left = (*others[1:], first)
            self.address = replace(self.address, url=others[0], pid=pid, others=left)

    def close(self) -> None:
        """Close the idle connections; the transport can still be used."""
        while self._idle:
            self._idle.pop().close()

    def connect(self) -> None:
        """Open the connection that the first request will use; Unreachable if nobody listens."""
        if not self._idle:
            self._idle.append(self._somewhere(self._open, True, PATIENCE))

    def dial(self) -> HTTPConnection:
        """A new connection, for the caller alone; Unreachable if nobody listens."""
        return self._somewhere(self._open, True, PATIENCE)

    def call(
        self,
        method: str,
        path: str,
        reply: type[T],
        *,
        body: object = None,
        query: Query | None = None,
        media: str = JSON,
        again: bool | None = None,
    ) -> T:
        """One request with a decoded reply. `body` is bytes, or anything that msgspec encodes.
        `again`: doing it twice is as good as once, so that it may be repeated where nobody knows
        what became of it; None: where the method says so."""
        content = body if isinstance(body, bytes) else b""
        if body is not None and not isinstance(body, bytes):
            content = msgspec.json.encode(body)
        again = method in ("GET", "PUT") if again is None else again

        def once() -> bytes:
            connection, response = self._once(method, path, query, content, media)
            return self._read_all(connection, response)

        data = self._somewhere(once, again, PATIENCE)
        try:
            return from_json(data, reply)
        except msgspec.DecodeError as error:
            raise Unavailable(
                f"the server at {self.address.place} sent a reply that this version of moorage "
                f"cannot read ({error}); upgrade the older of the two"
            ) from None

    def stream(
        self,
        path: str,
        *,
        query: Query | None = None,
        patience: float | None = None,
        method: str = "GET",
    ) -> Stream:
        """One request whose reply lasts: read it with `for chunk in stream`, then close it.
        Silence for longer than `patience` seconds breaks it. It may be sent more than once."""
        url = ""

        def once() -> tuple[HTTPConnection, HTTPResponse]:
            nonlocal url
            url = self.address.url
            return self._once(method, path, query, b"", JSON)

        # One round: whoever reads a stream asks again by itself.
        connection, response = self._somewhere(once, True, 0.0)
        if connection.sock is not None:
            connection.sock.settimeout(patience or (SILENCE if self.several else None))
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return Stream(connection, response, lambda: self.leave(url))

    def _somewhere(self, once: Callable[[], T], again: bool, patience: float) -> T:
        """Ask one server after the other, as far as that is safe, for `patience` seconds in all
        once each was tried."""
        tried: set[str] = set()
        deadline = None
        delays = iter(_DELAYS)
        while True:
            url = self.address.url
            try:
                return once()
            except _Setback as setback:
                if (setback.done and not again) or not (self.several or setback.passing):
                    raise setback.error from None
                tried.add(url)
                self.leave(url)
                deadline = deadline or time.monotonic() + patience
                if self.address.url in tried:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise Unreachable(f"no server could answer: {setback.error}") from None
                    tried.clear()
                    # Nothing tells a client that a server is there again.
                    select([], [], [], min(left, next(delays, _DELAYS[-1])))

    def _once(
        self, method: str, path: str, query: Query | None, body: bytes, media: str
    ) -> tuple[HTTPConnection, HTTPResponse]:
        """One request to the present server. _Setback where another one may be asked."""
        while True:
            connection, reused = self._connected()
            headers = {"Authorization": f"Bearer {self.address.token}", "Accept": "*/*"}
            if body:
                headers["Content-Type"] = media
            try:
                target = urlsplit(self.address.url).path + path + query_string(query)
                connection.request(method, target, body or None, headers)
                self._listen(connection, path)
                response = connection.getresponse()
                break
            except STALE as error:
                connection.close()
                if not reused:
                    raise _Setback(self._unreachable(error), done=True) from None
            except (OSError, HTTPException) as error:
                connection.close()
                raise _Setback(self._unreachable(error), done=True) from None
            except BaseException:  # Ctrl-C: half a reply would be taken for the next one
                connection.close()
                raise
        if response.status >= 400:
            refusal = error_of(response.status, self._read_all(connection, response))
            if response.status == 503 and response.getheader("Retry-After"):
                done = response.getheader(_NOT_LEADING) is None
                raise _Setback(refusal, done=done, passing=True)
            if isinstance(refusal, Forbidden) and not self.address.token:
                raise Forbidden(f"{self.address.url} wants a token; set MOORAGE_TOKEN")
            raise refusal
        return connection, response

    def _listen(self, connection: HTTPConnection, path: str) -> None:
        tell = None if path.endswith("/wait") else self.on_silence  # there it is meant to be long
        if tell and connection.sock and not select([connection.sock], [], [], HUSH)[0]:
            self.on_silence = None
            tell()

    def _read_all(self, connection: HTTPConnection, response: HTTPResponse) -> bytes:
        try:
            data = response.read()
        except (OSError, HTTPException) as error:
            connection.close()
            raise _Setback(self._unreachable(error), done=True) from None
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:
            self._idle.append(connection)
        return data

    def _connected(self) -> tuple[HTTPConnection, bool]:
        """A connection to the present server, and whether it was used before."""
        parts = urlsplit(self.address.url)
        while self._idle:
            connection = self._idle.pop()
            if (connection.host, connection.port) == (parts.hostname, _port(self.address.url)):
                return connection, True
            connection.close()
        return self._open(), False

    def _open(self) -> HTTPConnection:
        """_Setback where nobody listens."""
        connection = self._connection()
        try:
            connection.connect()
            self._recognize(connection)
        except OSError as error:
            connection.close()
            if not self._relocated():
                raise _Setback(self._unreachable(error), done=False) from None
        else:
            if connection.sock is not None:
                connection.sock.settimeout(SILENCE if self.several else REPLY_TIMEOUT)
            return connection
        return self._open()

    def _relocated(self) -> bool:
        """Whether this home's server is elsewhere by now; it is asked from now on."""
        moved = self._relocate() if self._relocate else None
        if moved is None or moved.url == self._home.url:
            return False
        self._home = self.address = moved
        return True

    def _recognize(self, connection: HTTPConnection) -> None:
        """OSError where the port of one of this user's own servers is somebody else's by now."""
        if self._home.pid is None or connection.host not in LOOPBACK:
            return
        reason = stranger(connection.sock)
        if reason is not None:
            raise ConnectionRefusedError(reason)

    def _connection(self) -> HTTPConnection:
        parts = urlsplit(self.address.url)
        timeout = _DIAL_TIMEOUT if self.several else REPLY_TIMEOUT
        host = parts.hostname or "127.0.0.1"
        if parts.scheme != "https":
            return HTTPConnection(host, parts.port, timeout=timeout)
        from http.client import HTTPSConnection

        from moorage.trust import context

        trusted = context(self.address.ca)
        return HTTPSConnection(host, parts.port, timeout=timeout, context=trusted)

    def _unreachable(self, error: Exception) -> Unreachable:
        if self.address.url.startswith("https:"):
            from ssl import SSLError

            from moorage.trust import complaint

            if isinstance(error, SSLError):
                return Unreachable(f"{self.address.url} is not trusted: {complaint(error)}")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unreachable(f"no server answers at {self.address.url}: {reason}")


class Stream:
    """The bytes of a reply that lasts, as they come; ends when the server ends it.

    Iteration raises Unreachable when the connection breaks instead. A context manager.
    """

    def __init__(
        self, connection: HTTPConnection, response: HTTPResponse, broken: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._response = response
        self._broken = broken

    def header(self, name: str) -> str | None:
        """A header of the reply."""
        return self._response.getheader(name)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                chunk = self._response.read1(65_536)
            except (OSError, HTTPException, ValueError) as error:
                # ValueError: http.client met the end of the connection inside a chunk's length
                self._broken()
                known = isinstance(error, OSError)
                why = error if known else "the server ended in the middle of its answer"
                raise Unreachable(f"the connection broke: {why}") from None
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


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def segment(value: object) -> str:
    """A value as one part of a path. InvalidInput where it is empty."""
    if value == "":
        raise InvalidInput(Problem("a name is empty", "is a variable of the shell not set?"))
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
        body = from_json(data, ErrorBody)
    except msgspec.DecodeError:
        return Unavailable(
            f"HTTP status {status} came without a reason: is that a moorage server? "
            "see MOORAGE_URL, and what stands between"
        )
    return error_from(body)


def error_from(body: ErrorBody) -> MoorageError:
    """The exception that the body of an error stands for."""
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
