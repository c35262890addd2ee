"""Blobs over a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from moorage.data.base import SourceError
from moorage.data.blobs import BlobCache
from moorage.data.fetch import HttpFetch


@pytest.fixture
def url(harbour) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = 200, b"".join(harbour.server.fetch(asked["digests"]))
            if self.path != "/base/v1/blobs/fetch":
                status, body = 500, b"<html>"
            elif self.headers["Authorization"] != "Bearer right":
                status, body = 401, b'{"code":"forbidden","message":"wrong token"}'
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) + (len(asked["digests"]) == 3)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/base/"
        server.shutdown()
        thread.join()


def test_a_tree_by_http(harbour, url: str, project: Path, tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", HttpFetch(url, "right"))
    assert cache.materialize(harbour.sent(project), tmp_path / "out").files == 4


def test_refusals_and_silence_are_one_line(harbour, url: str, tmp_path: Path) -> None:
    digest = harbour.sent(tmp_path)
    with pytest.raises(SourceError, match=r"^the server refused the files: wrong token$"):
        list(HttpFetch(url, "wrong")([digest]))
    with pytest.raises(SourceError, match=r"refused the files: 500 "):
        list(HttpFetch(url.replace("base", "other"), "right")([digest]))
    with pytest.raises(SourceError, match=r"no files from the server at .*: IncompleteRead"):
        list(HttpFetch(url, "right")([digest] * 3))
    with pytest.raises(SourceError, match="Connection refused"):
        list(HttpFetch("http://127.0.0.1:1", "right")([digest]))
