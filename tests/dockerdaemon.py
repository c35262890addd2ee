"""A Docker daemon of the tests' own, in a network of its own: what it does to the firewall is
nobody else's business. Needs root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 30.0  # seconds
_NEEDED = ("docker", "dockerd", "containerd", "ip", "nsenter", "tar")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def why_not() -> str:
    """What there is none without; empty where one can be tried."""
    if os.geteuid() != 0:
        return "root is needed to start a Docker daemon"
    missing = [name for name in _NEEDED if shutil.which(name, path=_PATH) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


@contextmanager
def running() -> Iterator[str]:
    """Its address. RuntimeError: it does not start here."""
    name = f"moorage-dockerd-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="dockerd-", ignore_cleanup_errors=True) as text:
        place = Path(text)
        subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
        try:
            with _started(name, place) as address:
                yield address
        finally:
            for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
                if line.split()[1].startswith(f"{place}/"):
                    subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
            subprocess.run(["ip", "netns", "del", name], check=True)


@contextmanager
def _started(network: str, place: Path) -> Iterator[str]:
    address = f"unix://{place}/socket"
    words = ["nsenter", f"--net=/run/netns/{network}", "dockerd", "--host", address]
    words += ["--data-root", f"{place}/data", "--exec-root", f"{place}/run"]
    words += ["--pidfile", f"{place}/pid", "--exec-opt", "native.cgroupdriver=cgroupfs"]
    words += ["--config-file", f"{place}/daemon.json"]
    (place / "daemon.json").write_text("{}")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notes,
        (place / "log").open("wb") as log,
    ):
        notes.bind(f"{place}/notes")
        notes.settimeout(PATIENCE)
        env = {"PATH": _PATH, "HOME": str(place), "NOTIFY_SOCKET": f"{place}/notes"}
        with subprocess.Popen(words, stdout=log, stderr=log, env=env) as daemon:
            try:
                said = notes.recv(4096)
            except TimeoutError:
                daemon.kill()
                last = (place / "log").read_text().strip().rpartition("\n")[2]
                raise RuntimeError(f"dockerd does not start here: {last}") from None
            try:
                assert b"READY=1" in said
                yield address
            finally:
                daemon.terminate()
                try:
                    daemon.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    daemon.kill()
