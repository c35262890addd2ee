"""Object stores on loopback: SeaweedFS and moto (S3), fake-gcs-server (GCS), Azurite (Azure).

    def test_something(seaweed: StoreServer):      # or moto, fake_gcs, azurite
        bucket = seaweed.make_bucket()
        engine(seaweed.access)                     # specs/stores/record.py: Access
        assert seaweed.listing(bucket) == {"a/b": 3}

    def test_everywhere(object_store: StoreServer): ...      # once with each of the four
    def test_a_crash(own_seaweed: StoreServer): ...          # to kill and start again

One server a kind and a test process, started when the first test asks, ended with the process
however that ends. Buckets are made, listed, read and written here by rclone with options of the
test bed's own, so that what the product does is seen by something else.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from moorage.specs.stores.record import Access

PATIENCE = 60.0
REMOTE = "X"
_TAKEN = re.compile(r"address already in use|port \d+ .* is not available", re.IGNORECASE)
"""How servers say that somebody else has a port."""


@dataclass(frozen=True)
class Recipe:
    """How one kind of server is started. `command` gets the ports that it asked for."""

    name: str
    ports: int
    command: Callable[[Path, list[int]], list[str]]
    ready: str
    """Of the line that says that it listens; its first group, if any, is the port."""
    access: Callable[[int], Access]
    rclone: Callable[[Access], Mapping[str, str]]
    environment: Mapping[str, str] = field(default_factory=dict)


class Buckets:
    """What is in a store, seen by rclone. `X:` is the store."""

    def __init__(self, access: Access, rclone: Callable[[Access], Mapping[str, str]]) -> None:
        self._access, self._options = access, rclone

    @property
    def access(self) -> Access:
        """What the product is given to work with this store."""
        return self._access

    def rclone(self, *arguments: str, given: bytes = b"") -> bytes:
        """What rclone prints; `X:` is this store."""
        rclone = program("rclone")
        assert rclone, "rclone is not installed"
        options = self._options(self.access)
        variables = {f"RCLONE_CONFIG_{REMOTE}_{k.upper()}": v for k, v in options.items()}
        done = subprocess.run(
            [rclone, "--retries=1", *arguments],
            env={**os.environ, **variables, "RCLONE_CONFIG": "/dev/null"},
            input=given,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        if done.returncode:
            raise RuntimeError(f"rclone {arguments}: {done.stderr.decode()}")
        return done.stdout

    def make_bucket(self, name: str = "") -> str:
        """Its name, one that nobody else has unless it is given."""
        name = name or f"test-{secrets.token_hex(6)}"
        self.rclone("mkdir", f"{REMOTE}:{name}")
        return name

    def buckets(self) -> list[str]:
        found = json.loads(self.rclone("lsjson", f"{REMOTE}:"))
        return sorted(one["Name"] for one in found)

    def listing(self, bucket: str, path: str = "") -> dict[str, int]:
        """Key below `path` -> size, of all objects."""
        found = json.loads(
            self.rclone(
                "lsjson", "-R", "--files-only", "--no-mimetype", f"{REMOTE}:{bucket}/{path}"
            )
        )
        return {one["Path"]: one["Size"] for one in found}

    def read(self, bucket: str, key: str) -> bytes:
        return self.rclone("cat", f"{REMOTE}:{bucket}/{key}")

    def write(self, bucket: str, key: str, content: bytes) -> None:
        self.rclone("rcat", f"{REMOTE}:{bucket}/{key}", given=content)


class StoreServer(Buckets):
    """One server, `directory` belongs to it. Start it from the main thread only: it dies with the
    thread that started it."""

    def __init__(self, recipe: Recipe, directory: Path) -> None:
        super().__init__(Access(recipe.name), recipe.rclone)
        self.recipe = recipe
        self.directory = directory
        self.log: deque[str] = deque(maxlen=500)
        self.ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._drain: threading.Thread | None = None
        self._heard = threading.Event()

    @property
    def name(self) -> str:
        """Of the program: `seaweed`, `moto`, `fake-gcs` or `azurite`."""
        return self.recipe.name

    @property
    def access(self) -> Access:
        """What the product is given to work with this store."""
        return self.recipe.access(self.ports[0])

    @property
    def endpoint(self) -> str:
        return self.access.endpoint

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Until it listens; on the same ports as before, with the data it had."""
        for _ in range(5):
            ports = self.ports or free_ports(self.recipe.ports)
            if self._started(ports):
                return
            self._reap()
            if self.ports or not any(_TAKEN.search(line) for line in self.log):
                break
        raise RuntimeError(f"{self.name} did not start:\n" + "".join(self.log))

    def _started(self, ports: list[int]) -> bool:
        self._heard.clear()
        self.log.clear()
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *self.recipe.command(self.directory, ports)],
            cwd=self.directory,
            env={**os.environ, **self.recipe.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._drain = threading.Thread(target=self._read_log, args=(self._process,), daemon=True)
        self._drain.start()
        assert self._heard.wait(PATIENCE), f"{self.name} neither starts nor fails"
        said = next((m for line in self.log if (m := re.search(self.recipe.ready, line))), None)
        if said is None:
            return False
        self.ports = [int(said[1])] if said.groups() else ports
        return True

    def _read_log(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.decode(errors="replace")
            self.log.append(text)
            if re.search(self.recipe.ready, text):
                self._heard.set()
        self._heard.set()

    def stop(self) -> None:
        """As an administrator stops it."""
        os.kill(self.pid, signal.SIGTERM)
        self._reap()

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)
        self._reap()

    def freeze(self) -> None:
        """It still accepts connections, and answers nothing until `thaw`."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _reap(self) -> None:
        assert self._process is not None
        assert self._drain is not None
        self._process.wait(PATIENCE)
        self._drain.join(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def close(self) -> None:
        """Nothing of it is left, whatever state it is in."""
        if self._process is not None:
            self.kill()
        for port in self.ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # weed has them only there
                left.unlink(missing_ok=True)


def free_ports(count: int) -> list[int]:
    """Nobody has them now. All come from below what the kernel hands out by itself: no connection
    of another test takes one before the server does, or while it is down. The last two are 10,000
    apart, as weed's admin wants its own."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            low = 12_000 + secrets.randbelow(10_000)
            with suppress(OSError):
                pair = (low, low + 10_000) if len(ports) == count - 2 else (low,)
                ports += [_bound(stack, port) for port in pair]
        return ports


def _bound(stack: ExitStack, port: int) -> int:
    taken = stack.enter_context(socket.socket())
    taken.bind(("127.0.0.1", port))
    return int(taken.getsockname()[1])


def program(name: str) -> str:
    """Its path, in this environment first; empty where it is not installed."""
    places = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    return shutil.which(name, path=places) or ""
