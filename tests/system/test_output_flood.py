"""Jobs that print more than anybody reads: they end, memory stays, and the others go on."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from system.servers import Server, serving

LIMIT = 20_000_000
LINES = 6_000_000
"""Of `seq`: 46.9 MB."""
WIDTH = 8
SIZE = 60_000_000
FLOOD = f"yes 0123456 | head -c {SIZE}"
GROWTH = 40.0
"""Megabytes that any process may grow by: far less than what is printed or asked for."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("flood"), "--node-name", "n1") as server:
        yield server


def resident(server: Server) -> dict[int, float]:
    """Megabytes of the server and its agent."""
    assert server.process is not None
    pid = server.process.pid
    agents = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        number: int(Path(f"/proc/{number}/statm").read_text().split()[1]) * 4096 / 1e6
        for number in (pid, *map(int, agents))
    }


def ended(server: Server, run: int) -> str:
    """The state it ended in."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state: str = server.call("GET", f"/v1/runs/{run}/wait").json["summary"]["state"]
        if state in ("succeeded", "failed", "cancelled"):
            return state
    raise AssertionError("the run does not end")


def ask(server: Server, run: int, query: str = "") -> socket.socket:
    """A connection on which output was asked for."""
    parts = urlsplit(server.url)
    assert parts.hostname
    connection = socket.create_connection((parts.hostname, parts.port), timeout=30)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    head = f"GET /v1/runs/{run}/logs?{query} HTTP/1.1\r\nHost: {parts.hostname}\r\n"
    connection.sendall(f"{head}Authorization: Bearer {server.token}\r\n\r\n".encode())
    return connection


def grown(before: dict[int, float], after: dict[int, float]) -> float:
    return max(after[pid] - before[pid] for pid in before)


def test_a_flood_is_kept_whole_and_streams_in_little_memory(server: Server) -> None:
    run = server.submit("whole", commands=[FLOOD])
    assert ended(server, run) == "succeeded"
    before = resident(server)
    most = 0.0
    connection = server.connection()
    headers = {"Authorization": f"Bearer {server.token}"}
    connection.request("GET", f"/v1/runs/{run}/logs", headers=headers)
    response = connection.getresponse()
    read = 0
    while chunk := response.read(1_000_000):
        assert chunk == (b"0123456\n" * 125_001)[read % WIDTH :][: len(chunk)]
        read += len(chunk)
        most = max(most, grown(before, resident(server)))
    connection.close()
    assert read == SIZE
    assert most < GROWTH


@pytest.mark.parametrize("offset", [0, SIZE // 2 + 3, SIZE - 5])
def test_it_can_be_followed_from_anywhere(server: Server, offset: int) -> None:
    run = server.submit("anywhere", commands=[FLOOD])  # the first submit of the three counts
    assert ended(server, run) == "succeeded"
    with ask(server, run, f"follow=1&offset={offset}") as connection:
        seen = b""
        while len(seen.partition(b"\r\n\r\n")[2].partition(b"\r\n")[2]) < 5:
            seen += connection.recv(4096)
    head, _, body = seen.partition(b"\r\n\r\n")
    assert f"moorage-log-offset: {offset}".encode() in head.lower()
    text = (b"0123456\n" * 3)[offset % WIDTH :]
    assert body.partition(b"\r\n")[2].startswith(text[:5])


def test_readers_that_do_not_read_hold_up_nobody(server: Server) -> None:
    run = server.submit("unread", commands=[FLOOD, "sleep 600"])
    before = resident(server)
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(ask(server, run, "follow=1"))
        other = server.submit("other", commands=["echo quick"])
        assert ended(server, other) == "succeeded"
        assert server.call("GET", f"/v1/runs/{other}/logs").body == b"quick\n"
        assert grown(before, resident(server)) < GROWTH
    server.call("POST", f"/v1/runs/{run}/stop", {"abort": True})
    assert ended(server, run) == "cancelled"


def test_what_is_beyond_the_limit_is_dropped_from_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(f"log_limit: {LIMIT}\n")
    with serving(tmp_path, "--node-name", "n1") as server:
        run = server.submit("limit", commands=[f"seq {LINES}"])
        assert ended(server, run) == "succeeded"
        reply = server.call("GET", f"/v1/runs/{run}/logs")
        lines = reply.body.split()
        total = len("\n".join(map(str, range(1, LINES + 1)))) + 1
        assert int(reply.headers["moorage-log-offset"]) + len(reply.body) == total
        assert lines[-1] == str(LINES).encode()
        assert [int(line) for line in lines] == list(range(int(lines[0]), LINES + 1))
        assert len(reply.body) <= LIMIT
        [output] = (tmp_path / "agent" / "logs").glob("*/output.log")
        assert output.stat().st_blocks * 512 <= LIMIT * 1.1
        assert json.loads(server.call("GET", "/v1/health").body)["status"] == "ok"
