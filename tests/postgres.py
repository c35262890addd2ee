"""PostgreSQL for tests: a server of their own on loopback, made from Debian's package.

    def test_something(database: str): ...            # URL of a fresh database, shared server
    def test_a_crash(own_postgres: Postgres): ...     # a server to stop, kill and start again

Both are skipped, with the reason, where PostgreSQL is not installed. Commits are as durable as in
production (`fsync=on`); only the making of the cluster is not synced.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import select
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

ACCOUNTS = ("postgres", "nobody")
"""PostgreSQL refuses to run as root: the first of these that exists runs it instead."""
READY = "database system is ready to accept"
"""Connections, or read-only connections."""
STOP_SIGNALS = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
PATIENCE = 60.0
PORTS = range(10_000, 12_000)
"""Below those that the kernel hands out by itself: nobody takes one while its server is down."""
SETTINGS = (
    "fsync=on",
    "synchronous_commit=on",
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=60",
    "shared_buffers=32MB",
    "dynamic_shared_memory_type=posix",
    "lc_messages=C",
    "logging_collector=off",
    "log_destination=stderr",
)


def binaries() -> Path | None:
    """Where `initdb` and `postgres` are, the newest of Debian's first; None without them."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version_of, reverse=True)
    on_path = shutil.which("initdb")
    candidates = [*packaged, *([Path(on_path).resolve().parent] if on_path else [])]
    for directory in candidates:
        if all((directory / name).is_file() for name in ("initdb", "postgres")):
            return directory
    return None


def _version_of(directory: Path) -> int:
    digits = re.match(r"\d+", directory.parent.name)
    return int(digits[0]) if digits else 0


class Postgres:
    """One server; `directory` belongs to it. Start and stop it from the main thread only: it dies
    with the thread that started it, so that a killed test leaves nothing behind."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self.programs = programs
        self.directory = directory
        self.data = directory / "data"
        self.port = 0
        self.password = secrets.token_hex(8)
        self.log: deque[str] = deque(maxlen=500)
        self._prefix = _as_account(directory)
        self._process: subprocess.Popen[bytes] | None = None
        self._drain: threading.Thread | None = None
        self._ready = threading.Event()
        self._create()

    def _create(self) -> None:
        secret = self.directory / "password"
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, self.password.encode())
        os.close(descriptor)
        owner = self.directory.stat()
        os.chown(secret, owner.st_uid, owner.st_gid)
        self._command(
            "initdb",
            *("--no-sync", "--encoding=UTF8", "--locale=C", "--username=moorage"),
            *("--auth=scram-sha-256", f"--pwfile={secret}", f"--pgdata={self.data}"),
        )

    def _command(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._prefix, str(self.programs / name), *arguments],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed: {done.stderr}")

    def start(self) -> None:
        """Start it and wait until it accepts connections, on the same port each time."""
        for _ in range(20):
            port = self.port or secrets.choice(PORTS)
            if self._started(port):
                self.port = port
                return
            if self.port or not any("Address already in use" in line for line in self.log):
                break
        raise RuntimeError("PostgreSQL did not start:\n" + "".join(self.log))

    def _started(self, port: int) -> bool:
        settings = [word for one in (*SETTINGS, f"port={port}") for word in ("-c", one)]
        self._ready.clear()
        self._process = subprocess.Popen(
            [*self._prefix, str(self.programs / "postgres"), "-D", str(self.data), *settings],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._drain = threading.Thread(target=self._read_log, args=(self._process,), daemon=True)
        self._drain.start()
        assert self._ready.wait(PATIENCE), "PostgreSQL neither starts nor fails"
        if self._process.poll() is None and READY in "".join(self.log):
            return True
        self._reap()
        return False

    def _read_log(self, process: subprocess.Popen[bytes]) -> None:
        """Ready, or at its end: whoever waits is told in both cases."""
        assert process.stderr is not None
        self.log.clear()
        for line in process.stderr:
            text = line.decode(errors="replace")
            self.log.append(text)
            if READY in text:
                self._ready.set()
        self._ready.set()

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def children(self) -> list[int]:
        """Of the postmaster: a process a connection, and its own helpers."""
        return _children(self.pid)

    def stop(self, mode: str = "fast") -> None:
        """End it in one of PostgreSQL's three ways, and wait until nothing of it is left.
        `smart` waits for clients to go by themselves."""
        assert self._process is not None
        self._process.send_signal(STOP_SIGNALS[mode])
        self._reap()

    def kill(self) -> None:
        """kill -9 of every process of it at once, as when the machine's power fails."""
        watched = []
        for child in self._halted():
            watched.append(os.pidfd_open(child))
            os.kill(child, signal.SIGKILL)
        os.kill(self.pid, signal.SIGKILL)
        for descriptor in watched:
            assert select.select([descriptor], [], [], PATIENCE)[0], "a killed process lives on"
            os.close(descriptor)
        self._reap()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It does nothing, and its connections stay, for the length of the block."""
        children = self._halted()
        for child in children:
            os.kill(child, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in (*children, self.pid):
                os.kill(pid, signal.SIGCONT)

    def _halted(self) -> list[int]:
        """Its children, while the postmaster stands still: it starts no other until it goes on,
        and none of these numbers goes, since it sees the end of none."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return self.children()

    def _reap(self) -> None:
        assert self._process is not None
        assert self._drain is not None
        self._process.wait(PATIENCE)
        self._drain.join(PATIENCE)
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._process = None

    def url(self, database: str) -> str:
        """How the owner of the cluster reaches this database, password included."""
        return f"postgresql://moorage:{self.password}@127.0.0.1:{self.port}/{quote(database)}"

    def new_database(self) -> str:
        """URL of an empty database with a name of its own."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError("PostgreSQL has ended:\n" + "".join(self.log))
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Delete it, whoever is still connected."""
        name = url.rsplit("/", 1)[1]
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def _as_account(directory: Path) -> list[str]:
    """The words before a command that make it run as somebody who is not root; `directory` is
    given to them. It dies with its parent in any case."""
    prefix = ["setpriv", "--pdeathsig=QUIT"]
    if os.geteuid() != 0:
        return prefix
    for name in ACCOUNTS:
        with suppress(KeyError):
            account = pwd.getpwnam(name)
            os.chown(directory, account.pw_uid, account.pw_gid)
            ids = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
            return [*prefix, *ids]
    raise RuntimeError("no account to run PostgreSQL as")


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server in a temporary directory; all of it is gone afterwards. Skips the test
    where PostgreSQL is not installed."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian's package: postgresql)")
    directory = Path(tempfile.mkdtemp(prefix="moorage-pg-"))
    server = None
    try:
        server = Postgres(programs, directory)
        server.start()
        yield server
    finally:
        if server is not None and server._process is not None:
            server.stop("immediate")
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One server for all tests of this process: leave it running."""
    with postgres() as server:
        yield server


@pytest.fixture
def database(postgres_server: Postgres) -> Iterator[str]:
    """URL of a fresh database."""
    url = postgres_server.new_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server for this test alone, to stop, kill and start again."""
    with postgres() as server:
        yield server
