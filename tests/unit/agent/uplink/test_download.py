from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from moorage.agent.uplink.addresses import Addresses
from moorage.agent.uplink.download import PATIENCE, Download
from moorage.data.base import SourceError
from moorage.data.stopping import Stopper, current
from moorage.ids import Digest
from moorage.protocol.api import ErrorBody, FetchRequest

DIGEST = Digest("a" * 64)


@contextmanager
def served(answer: object) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer(self, body)  # type: ignore[operator]

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("secret\n")
    return path


def download(token: Path, *urls: str, patience: float = PATIENCE) -> Download:
    return Download(Addresses(urls, token.with_name("servers")), token, patience)


def test_pieces_come_as_they_arrive(token: Path) -> None:
    seen = []

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        seen.append((handler.path, handler.headers["Authorization"]))
        assert msgspec.json.decode(body, type=FetchRequest).digests == [DIGEST]
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"x" * 3_000_000)

    with served(answer) as url:
        assert sum(map(len, download(token, url)([DIGEST]))) == 3_000_000
    assert seen == [("/v1/blobs/fetch", "Bearer secret")]


def test_a_refusal_says_why(token: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(404)
        handler.end_headers()
        handler.wfile.write(msgspec.json.encode(ErrorBody("not-found", "no blob aaaa")))

    with served(answer) as url, pytest.raises(SourceError, match=r"status 404\): no blob aaaa"):
        list(download(token, url)([DIGEST]))


def test_a_server_that_is_away_is_named(token: Path) -> None:
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SourceError, match=f"cannot be fetched from {url}"):
            list(download(token, url, patience=0)([DIGEST]))


def test_a_pack_that_breaks_off_goes_on_where_its_only_server_is_back(token: Path) -> None:
    pack = bytes(range(256)) * 8192
    asked = []

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        asked.append(body)
        handler.send_response(503 if len(asked) == 2 else 200)
        handler.send_header("Content-Length", str(len(pack)))
        handler.end_headers()
        handler.wfile.write(pack[:1_500_000] if len(asked) < 3 else pack)

    with served(answer) as url:
        assert b"".join(download(token, url)([DIGEST])) == pack
    assert len(asked) == 3


def test_a_pack_that_breaks_off_goes_on_at_the_next_server(token: Path) -> None:
    pack = bytes(range(256)) * 8192

    def breaks(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(pack)))
        handler.end_headers()
        handler.wfile.write(pack[:1_500_000])

    def refuses(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(503)
        handler.end_headers()

    def gives(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(pack)))
        handler.end_headers()
        handler.wfile.write(pack)

    with served(breaks) as first, served(refuses) as second, served(gives) as third:
        assert b"".join(download(token, first, second, third)([DIGEST])) == pack


def test_a_stop_ends_a_silent_download(token: Path) -> None:
    asked, over = threading.Event(), threading.Event()

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        asked.set()
        over.wait(60)

    stopper = Stopper()
    stopping = threading.Thread(target=lambda: (asked.wait(60), stopper.stop()))
    with served(answer) as url:
        stopping.start()
        mark = current.set(stopper)
        try:
            with pytest.raises(SourceError):
                list(download(token, url)([DIGEST]))
        finally:
            current.reset(mark)
            over.set()
            stopping.join()
