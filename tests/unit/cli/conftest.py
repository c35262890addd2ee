"""A small real HTTP server that answers what a test tells it to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from moorage import Client


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    headers: dict[str, str]


@dataclass
class ScriptedReply:
    """`chunks` are sent one by one in chunked encoding; `cut` drops the connection after them."""

    body: object = b""
    status: int = 200
    chunks: list[bytes] | None = None
    cut: bool = False
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Request], ScriptedReply]


class Scripted(ThreadingHTTPServer):
    """Routes are `"GET /v1/info"`; a list of replies is used up, the last one stays."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Serve)
        self.routes: dict[str, Handler | list[ScriptedReply]] = {}
        self.seen: list[Request] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is no error to be told of, in the middle of another test."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def answer(self, request: Request) -> ScriptedReply:
        self.seen.append(request)
        route = self.routes.get(f"{request.method} {request.path}")
        if route is None:
            body = {"code": "not-found", "message": f"no {request.path}"}
            return ScriptedReply(body, 404)
        if callable(route):
            return route(request)
        return route.pop(0) if len(route) > 1 else route[0]


class _Serve(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        self.server.connections += 1
        super().setup()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        request = Request(self.command, parts.path, query, body, dict(self.headers))
        reply = self.server.answer(request)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.chunks is None:
            data = reply.body if isinstance(reply.body, bytes) else msgspec.json.encode(reply.body)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in reply.chunks:
            self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        if reply.cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(scripted: Scripted) -> Iterator[Client]:
    with Client(scripted.url, "secret") as client:
        yield client


@pytest.fixture
def Reply() -> type[ScriptedReply]:
    """The class of replies; test files cannot import this one."""
    return ScriptedReply
