"""Several real servers with their agents on one real PostgreSQL, and users who do not stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from moorage import Client
from moorage.errors import Unavailable, Unreachable
from moorage.specs.mounts import HostPath, Mount
from moorage.specs.task import Task
from postgres import Postgres
from system.servers import Server

LEASE = 2.0
PATIENCE = 60.0


@dataclass
class Member(Server):
    """A server whose log is read line by line as it is written."""

    database: str = ""
    lines: list[tuple[float, str]] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)
    reader: threading.Thread | None = None

    def start(self) -> None:
        """Start and wait until it answers, in whatever role."""
        self.home.mkdir(exist_ok=True)
        ready, tell = os.pipe()
        environment = {**os.environ, "MOORAGE_DATABASE": self.database}
        command = [sys.executable, "-m", "moorage.server.main", "--home", str(self.home)]
        with self.news:
            self.lines.clear()
        try:
            self.process = subprocess.Popen(
                [*command, "--ready-fd", str(tell), *self.arguments],
                pass_fds=[tell],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
            )
        finally:
            os.close(tell)
        self.reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self.reader.start()
        with open(ready, "rb") as pipe:
            assert pipe.readline() == b"ready\n", self.log
        address = json.loads((self.home / "server.json").read_text())
        self.url, self.token = address["url"], address["token"]

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                with self.news:
                    self.lines.append((time.monotonic(), line.decode()))
                    self.news.notify_all()

    @property
    def log(self) -> str:
        with self.news:
            return "".join(line for _, line in self.lines)

    def said(self, words: str, since: float = 0.0) -> float | None:
        """When it first wrote this, after `since`."""
        with self.news:
            return next((at for at, line in self.lines if at > since and words in line), None)

    def await_saying(self, words: str, since: float = 0.0) -> float:
        """Wait until it writes this; when it did."""
        with self.news:
            assert self.news.wait_for(lambda: self.said_unlocked(words, since), PATIENCE), (
                f"{self.home.name} did not say {words!r}:\n"
                + "".join(line for _, line in self.lines[-40:])
            )
        at = self.said(words, since)
        assert at is not None
        return at

    def said_unlocked(self, words: str, since: float) -> bool:
        return any(at > since and words in line for at, line in self.lines)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> None:
        """Wait for the end of process and log."""
        assert self.process is not None
        assert self.reader is not None
        self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)

    @property
    def role(self) -> str:
        """Empty while it has no database."""
        role: str = self.call("GET", "/v1/health").json.get("role", "")
        return role


class Fleet:
    """`members` on one database; each with a node of its own."""

    def __init__(
        self, postgres: Postgres, directory: Path, size: int, lease: float = LEASE
    ) -> None:
        self.postgres = postgres
        self.database = postgres.new_database()
        self.members = []
        for number in range(size):
            home = directory / f"server-{number}"
            home.mkdir()
            (home / "config.yml").write_text(f"leader_lease: {lease}s\n")
            self.members.append(
                Member(home, ["--node-name", f"node-{number}"], database=self.database)
            )

    @property
    def leader(self) -> Member:
        """The one whose last word was that it leads."""
        return next(m for m in self.members if m.process and m.role == "leader")

    def others(self, member: Member) -> list[Member]:
        return [other for other in self.members if other is not member]

    def await_leader(self, among: list[Member], since: float) -> tuple[Member, float]:
        """Who said first, after `since`, that it leads, and when."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for member in among:
                at = member.said("leading, epoch", since)
                if at is not None:
                    return member, at
            with among[0].news:
                among[0].news.wait(0.05)
        raise AssertionError("nobody leads:\n" + "\n".join(m.log for m in self.members))

    def await_acquaintance(self) -> None:
        """Wait until every agent has been told of every server."""
        wanted = {member.url for member in self.members}
        deadline = time.monotonic() + PATIENCE
        quiet = threading.Event()
        for member in self.members:
            memory = member.home / "agent" / "servers"
            while not (memory.exists() and wanted <= set(memory.read_text().split())):
                assert time.monotonic() < deadline, f"{memory} does not name {wanted}"
                quiet.wait(0.02)

    def client(self) -> Client:
        """Knows every server, and may ask any of them."""
        first, urls = self.members[0], ",".join(m.url for m in self.members)
        return Client(urls, first.token, first.home)

    def end(self) -> None:
        for member in self.members:
            if member.process is not None and member.process.poll() is None:
                with suppress(ProcessLookupError):
                    member.signal(signal.SIGCONT)
                    member.signal(signal.SIGTERM)
        for member in self.members:
            if member.process is not None:
                member.ended()
            end_agent(member.home)


def end_agent(home: Path) -> None:
    """The agent outlives a server that was killed; with it, once no job runs, its keeper."""
    with suppress(OSError, ValueError):
        descriptor = os.pidfd_open(int((home / "agent" / "lock").read_text()))
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


@contextmanager
def fleet(postgres: Postgres, directory: Path, size: int, lease: float = LEASE) -> Iterator[Fleet]:
    """Servers for the length of a block; the first leads at its beginning."""
    made = Fleet(postgres, directory, size, lease)
    try:
        for member in made.members:
            member.start()
            if member is made.members[0]:
                member.await_saying("leading, epoch")
        made.await_acquaintance()
        yield made
    finally:
        made.end()


class Users:
    """Threads that submit short jobs as long as the block lasts, each with its request id, and
    repeat what was not acknowledged until it is."""

    def __init__(self, client: Callable[[], Client], record: Path, threads: int = 4) -> None:
        self._client = client
        self._record = record
        self._over = threading.Event()
        self._gate = threading.Lock()
        self.acknowledged: dict[str, int] = {}
        """Run numbers by request id."""
        self.repeated = 0
        self.failure: BaseException | None = None
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]

    def __enter__(self) -> Users:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        try:
            with self._client() as client:
                turn = 0
                while not self._over.is_set():
                    self._submit(client, f"u{number}-{turn}")
                    turn += 1
                    self._over.wait(0.1)
        except BaseException as error:
            self.failure = error

    def _submit(self, client: Client, request: str) -> None:
        # A job has a /tmp of its own, where the tests' directories are.
        mounts: list[Mount] = [HostPath(str(self._record.parent), "/shared")]
        command = f"echo {request} >> /shared/{self._record.name}"
        task = Task(commands=[command], name=request, mounts=mounts)
        for _ in range(20):
            try:
                [run] = client.submit(task, request_id=request)
            except (Unreachable, Unavailable):
                self.repeated += 1
                continue
            with self._gate:
                self.acknowledged[request] = run.id
            return
        raise AssertionError(f"{request} was never accepted")
