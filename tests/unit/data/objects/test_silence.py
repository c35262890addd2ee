from __future__ import annotations

import http.server
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from moorage.data.objects import silence
from moorage.data.objects.bucket import Bucket, open_bucket
from moorage.data.objects.errors import StoreProblem
from moorage.data.objects.silence import Silence
from moorage.data.objects.traffic import Traffic
from moorage.specs.stores.record import Access

LISTING = (
    b'<?xml version="1.0"?><ListBucketResult><Name>b</Name><Prefix></Prefix>'
    b"<KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
    b"<Contents><Key>k</Key><LastModified>2026-11-21T12:00:00.000Z</LastModified>"
    b'<ETag>"1"</ETag><Size>1</Size></Contents></ListBucketResult>'
)
READING = "lab://b does not answer; it is tried for 20s, or 60s where it takes connections"
SENDING = "lab://b does not answer; it is tried for 20s, or 15m where it takes connections"
BACK = "lab://b answers again, after 0s"
SOON = 0.05
PATIENCE = 60


class Told:
    """What was said, to wait for."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bool]] = []
        self._more = threading.Condition()

    def __call__(self, said: str, away: bool) -> None:
        with self._more:
            self.lines.append((re.sub(r"after \d+s$", "after 0s", said), away))
            self._more.notify_all()

    def wait(self, count: int) -> None:
        with self._more:
            assert self._more.wait_for(lambda: len(self.lines) >= count, PATIENCE), self.lines


class Slow(http.server.ThreadingHTTPServer):
    """A store that answers when it may, with a listing; while it is `ill` with a refusal."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.may = threading.Event()
        self.ill = threading.Event()
        self.told = Told()

    def tell(self, said: str, away: bool) -> None:
        if away:
            silence.AFTER = PATIENCE  # what a busy machine does next is told of nobody
        self.told(said, away)
        self.may.set()
        self.ill.clear()


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Slow)
        self.server.may.wait(PATIENCE)
        body = b"" if self.server.ill.is_set() else LISTING
        self.send_response(200 if body else 503)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def slow() -> Iterator[Slow]:
    with Slow() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.may.set()
        server.ill.clear()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "AFTER", SOON)


def rested() -> None:
    """Nobody watches any more."""
    for thread in threading.enumerate():
        if thread.name == "silence":
            thread.join(PATIENCE)
            assert not thread.is_alive()


def opened(server: Slow) -> Bucket:
    secrets = {"access_key_id": "a", "secret_access_key": "b"}
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    access = Access("s3", endpoint, "us-east-1", path_style=True, secrets=secrets)
    return open_bucket(access, "b", shown="lab://b", tell=server.tell)


def test_a_late_answer_is_told_and_that_it_came(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = opened(slow)
    assert [one.key for page in bucket.list() for one in page] == ["k"]  # it waits to be told of
    slow.told.wait(2)
    rested()
    monkeypatch.setattr(silence, "AFTER", SOON)
    slow.may.clear()
    bucket.put("k", b"in the middle")
    slow.told.wait(4)
    assert slow.told.lines == [(READING, True), (BACK, False), (SENDING, True), (BACK, False)]


def test_a_store_that_refuses_everything_does_not_answer(slow: Slow) -> None:
    slow.may.set()
    slow.ill.set()
    assert len(list(opened(slow).list())) == 1
    slow.told.wait(2)
    assert slow.told.lines[0] == (READING, True)


def test_a_store_that_answers_is_not_told_of(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "AFTER", PATIENCE)  # nobody knows how long an answer takes here
    slow.may.set()
    bucket = opened(slow)
    pages = bucket.list()
    next(pages)  # whoever is slow with a page waits for nothing
    bucket.silence.answered()  # wakes who watches
    rested()
    assert slow.told.lines == []
    assert list(pages) == []


def test_what_takes_long_by_itself_is_not_told_so_soon(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "LATE", 0.3)
    one = Silence(slow.tell, "lab://b", 20)
    with one.asking(sending=True, slow=True):
        assert one._worth() == 0.3
        with one.asking():
            assert one._worth() == SOON
    one._told = 3
    assert one._worth() == 0.3


def test_a_failure_is_no_answer() -> None:
    told = Told()
    one = Silence(told, "lab://b", 20)
    with pytest.raises(StoreProblem), one.asking():  # it waits inside
        told.wait(1)
        raise StoreProblem("failed", "", "")
    told.wait(2)
    assert told.lines == [(READING, True), ("", False)]


def test_what_goes_through_a_connection_is_life() -> None:
    near, far = socket.create_connection, socket.create_server(("127.0.0.1", 0))
    with far, near(far.getsockname()) as client, far.accept()[0] as server:
        traffic = Traffic()
        client.sendall(bytes(1000))
        assert len(server.recv(1000, socket.MSG_WAITALL)) == 1000
        assert not traffic.moved(), "a request without an answer"
        client.sendall(bytes(100_000))
        server.recv(100_000, socket.MSG_WAITALL)
        assert traffic.moved()
        while traffic.moved():
            pass  # the last acknowledgement may come later
