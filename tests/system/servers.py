"""Real server processes for tests, and a plain HTTP client for them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from websockets.sync.client import connect

from moorage.engine.testing import hello
from moorage.protocol.agent import (
    Held,
    Report,
    ToAgent,
    ToServer,
    Welcome,
    encode,
    unbundle,
)

T = TypeVar("T")
START_TIMEOUT = 60.0
PATIENCE = 60.0


@dataclass
class Reply:
    """One HTTP reply, read whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A server process over a home directory; without a node unless asked for."""

    home: Path
    arguments: list[str] = field(default_factory=lambda: ["--no-node"])
    process: subprocess.Popen[bytes] | None = None
    url: str = ""
    token: str = ""
    environment: dict[str, str] | None = None
    """Of the process; None: this one's."""

    def start(self) -> None:
        """Start and wait until it says that it is ready."""
        ready, tell = os.pipe()
        log = os.open(self.home / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        command = [sys.executable, "-m", "moorage.server.main", "--home", str(self.home)]
        try:
            self.process = subprocess.Popen(
                [*command, "--ready-fd", str(tell), *self.arguments],
                pass_fds=[tell],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=self.environment,
            )
        finally:
            os.close(tell)
            os.close(log)
        try:
            readable, _, _ = select.select([ready], [], [], START_TIMEOUT)
            said = os.read(ready, 16) if readable else b""
        finally:
            os.close(ready)
        if said != b"ready\n":
            self.kill()
            raise AssertionError((self.home / "server.log").read_text())
        address = json.loads((self.home / "server.json").read_text())
        self.url, self.token = address["url"], address["token"]

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    @property
    def node_token(self) -> str:
        return (self.home / "agent" / "token").read_text().strip()

    def connection(self) -> HTTPConnection:
        parts = urlsplit(self.url)
        assert parts.hostname
        # Longer than any answer is waited for by the server.
        return HTTPConnection(parts.hostname, parts.port, timeout=1.5 * PATIENCE)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """One request on a connection of its own; `token` "" sends none."""
        sent = {"Authorization": f"Bearer {self.token if token is None else token}"}
        if token == "":
            sent = {}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if data is not None and not isinstance(body, bytes):
            sent["Content-Type"] = "application/json"
        connection = self.connection()
        try:
            connection.request(method, path, data, sent | (headers or {}))
            response = connection.getresponse()
            received = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, received, response.read())
        finally:
            connection.close()

    def submit(self, request_id: str = "r", **spec: Any) -> int:
        """Submit one run; its number."""
        task = {"type": "task", "commands": ["true"], **spec}
        reply = self.call("POST", "/v1/runs", {"request_id": request_id, "runs": [{"spec": task}]})
        assert reply.status == 200, reply.body
        number: int = reply.json["runs"][0]["id"]
        return number


@contextmanager
def serving(home: Path, *arguments: str) -> Iterator[Server]:
    """A server for the length of a block."""
    server = Server(home, list(arguments) or ["--no-node"])
    server.start()
    try:
        yield server
    finally:
        assert server.process is not None
        if server.process.poll() is None:
            server.stop()


class SocketAgent:
    """A node's agent as the server sees it: a WebSocket, and no processes behind it."""

    def __init__(self, server: Server, name: str = "n1") -> None:
        self.name = name
        self.seq = 0
        self._received: list[ToAgent] = []
        self._open = connect(
            server.url.replace("http", "ws", 1) + "/v1/agent",
            additional_headers={"Authorization": f"Bearer {server.node_token}"},
            compression=None,
            proxy=None,
            open_timeout=PATIENCE,
        )

    def greet(self, *held: Held) -> Welcome:
        """Say hello; the answer."""
        self.send(hello(self.name, *held))
        return self.expect(Welcome)

    def send(self, message: ToServer) -> None:
        self.socket.send(encode(message))

    def report(self, *held: Held) -> None:
        self.seq += 1
        self.send(Report(self.seq, list(held)))

    def receive(self, timeout: float = PATIENCE) -> ToAgent:
        if not self._received:
            data = self.socket.recv(timeout=timeout)
            assert isinstance(data, bytes)
            self._received = unbundle(data)
        return self._received.pop(0)

    def expect(self, kind: type[T]) -> T:
        """The next message of a kind; others are passed over."""
        while not isinstance(message := self.receive(), kind):
            pass
        return message

    def __enter__(self) -> SocketAgent:
        self.socket = self._open.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.__exit__(None, None, None)
