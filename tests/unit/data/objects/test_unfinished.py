from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from moorage.data.objects.bucket import open_bucket
from moorage.data.objects.unfinished import _read
from moorage.specs.stores.record import Access


class Noting(http.server.BaseHTTPRequestHandler):
    """A store without unfinished uploads."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = b"<ListMultipartUploadsResult/>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Noting, "asked", [], raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Noting) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("kind", "region", "signed"),
    [("s3", "eu-west-1", "eu-west-1"), ("nebius", "", "eu-north1"), ("r2", "", "auto")],
)
def test_requests_are_signed_for_the_region_of_the_store(
    endpoint: str, kind: str, region: str, signed: str
) -> None:
    """Of a kind that has one of its own, too: a store refuses what is signed for another."""
    secrets = {"access_key_id": "a", "secret_access_key": "b"}
    access = Access(kind, endpoint, region, secrets=secrets)
    assert open_bucket(access, "bucket").uploads.listed() == []
    [asked] = Noting.asked
    scope = parse_qs(urlsplit(asked).query)["X-Amz-Credential"][0]
    assert scope.split("/")[2] == signed


def test_none_begins_in_the_future() -> None:
    """A store's clock is known to the second only, and what is older than nothing is all."""
    began = datetime.now(UTC).isoformat()
    one = _read(f"<Key>k</Key><UploadId>1</UploadId><Initiated>{began}</Initiated>", -0.9)
    assert time.time() - 1 < one.began <= time.time()


def test_without_keys_nobody_can_ask_what_is_kept_all_the_same() -> None:
    uploads = open_bucket(Access("s3", "http://127.0.0.1:9", anonymous=True), "bucket").uploads
    assert (uploads.kept, uploads.known) == (True, False)
