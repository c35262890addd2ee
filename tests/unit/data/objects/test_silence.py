from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from moorage.data.objects import silence
from moorage.data.objects.bucket import Bucket, open_bucket
from moorage.data.objects.silence import Silence
from moorage.specs.stores.record import Access

LISTING = (
    b'<?xml version="1.0"?><ListBucketResult><Name>b</Name><Prefix></Prefix>'
    b"<KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
    b"<Contents><Key>k</Key><LastModified>2026-11-21T12:00:00.000Z</LastModified>"
    b'<ETag>"1"</ETag><Size>1</Size></Contents></ListBucketResult>'
)


class Slow(http.server.ThreadingHTTPServer):
    """A store that answers when it may, with a listing."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.may = threading.Event()
        self.told: list[str] = []

    def tell(self, said: str) -> None:
        self.told.append(said)
        self.may.set()


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Slow)
        self.server.may.wait(20)
        self.send_response(200)
        self.send_header("Content-Length", str(len(LISTING)))
        self.end_headers()
        self.wfile.write(LISTING)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def slow() -> Iterator[Slow]:
    with Slow() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.may.set()
        server.shutdown()
        thread.join()


def opened(server: Slow) -> Bucket:
    secrets = {"access_key_id": "a", "secret_access_key": "b"}
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    access = Access("s3", endpoint, "us-east-1", path_style=True, secrets=secrets)
    return open_bucket(access, "b", shown="lab://b", tell=server.tell)


def test_a_late_first_answer_is_told_once(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "AFTER", 0.05)
    bucket = opened(slow)
    assert [one.key for page in bucket.list() for one in page] == ["k"]  # it waits to be told of
    bucket.check()
    said = "lab://b does not answer; it is tried for 20s, or 60s where it takes connections"
    assert slow.told == [said]


def test_a_store_that_answers_is_not_told_of(slow: Slow) -> None:
    slow.may.set()
    bucket = opened(slow)
    pages = bucket.list()
    next(pages)  # whoever is slow with the first page waits for nothing
    timer = bucket._silence._timer
    assert timer is not None
    timer.join(1)
    assert not timer.is_alive()
    assert slow.told == []


def test_nothing_is_told_of_what_has_ended() -> None:
    told: list[str] = []
    one = Silence(told.append, "lab://b", 5)
    one.end()
    one.begin()
    one._speak()
    assert (told, one._timer) == ([], None)
