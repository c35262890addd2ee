from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator

import pytest

from moorage.data.objects.bucket import open_bucket
from moorage.data.objects.retrying import retries
from moorage.specs.stores.record import Access

AWAY = 12


class Flaky(http.server.BaseHTTPRequestHandler):
    """A store that is away for its first requests, as one is that starts again."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        away = self.asked <= AWAY
        self.send_response(503 if away else 200)
        self.send_header("Content-Length", "0" if away else "2")
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 12:00:00 GMT")
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(b"" if away else b"ok")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("moorage.data.objects.retrying._PAUSE", 0.05)
    with http.server.HTTPServer(("127.0.0.1", 0), Flaky) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_store_that_is_away_for_longer_than_ten_tries_is_waited_for(endpoint: str) -> None:
    secrets = {"access_key_id": "a", "secret_access_key": "b"}
    access = Access("s3", endpoint, "us-east-1", path_style=True, secrets=secrets)
    began = time.monotonic()
    assert open_bucket(access, "bucket", patience=20).get("key") == b"ok"
    assert time.monotonic() - began < 15
    assert Flaky.asked == AWAY + 1


def test_who_has_little_patience_asks_a_few_times_only() -> None:
    assert retries(5)["max_retries"] < 5 < retries(20)["max_retries"]
