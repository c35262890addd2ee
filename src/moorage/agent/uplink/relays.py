"""The way to the embedded store from a node that is not on the server's machine: the agent's side
of `relayend`, which it starts, finds again, and starts again where it was killed."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from moorage.agent.uplink.addresses import LOOPBACK, Addresses
from moorage.agent.uplink.relayend import LOCK, has_mounts
from moorage.agent.uplink.tunnel import TunnelEnd
from moorage.data.base import SourceError
from moorage.protocol.stores import EMBEDDED
from moorage.specs.stores.record import Access

PATIENCE = 20.0
"""Seconds for it to listen: an interpreter's start on a busy machine."""
_BOOT = (
    "import sys; sys.path[:] = sys.argv.pop(1).split(':'); "
    "from moorage.agent.uplink.relayend import main; sys.exit(main())"
)


class Relays:
    """One a node. Calls block; from any thread."""

    def __init__(self, home: Path, addresses: Addresses) -> None:
        """`home`: the agent's."""
        self._home = home
        self._addresses = addresses
        self._one = threading.Lock()
        self._watched: set[int] = set()

    def reached(self, access: Access) -> Access:
        """The same store as this node reaches it. SourceError."""
        if access.kind != EMBEDDED or self._is_near():
            return access
        return structs.replace(access, endpoint=f"http://127.0.0.1:{self.port()}")

    def resume(self) -> None:
        """Mounts that an earlier agent left may wait for it: start it where it ended."""
        if (self._home / LOCK).exists() and has_mounts(self._home):
            with suppress(SourceError):  # said again when it is asked for
                self.port()

    def port(self) -> int:
        """Where it listens: the same port for as long as nobody else takes it. SourceError."""
        with self._one:
            found = self._found()
            if found is None:
                return self._start(self._last_port())
            pid, port = found
            if self._command() == _command_of(pid):
                self._watch(pid)
                return port
            _end(pid)  # of another version, or it looks for the server where that was
            return self._start(port)

    def _is_near(self) -> bool:
        """Whether this is the server's own machine: only there its plain port is known."""
        if isinstance(self._addresses, TunnelEnd):
            return False
        url = self._addresses.present
        return url.startswith("http:") and any(f"//{name}" in url for name in LOOPBACK)

    def _found(self) -> tuple[int, int] | None:
        """Pid and port of the one that runs."""
        try:
            descriptor = os.open(self._home / LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with suppress(ValueError):
                pid, port = os.pread(descriptor, 64, 0).split()
                return int(pid), int(port)
        finally:
            os.close(descriptor)
        return None

    def _last_port(self) -> int:
        with suppress(OSError, ValueError, IndexError):
            return int((self._home / LOCK).read_text().split()[1])
        return 0

    def _command(self) -> list[str]:
        start = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, ":".join(sys.path)]
        return [*start, "--home", str(self._home), *self._addresses.words]

    def _start(self, port: int) -> int:
        ready, told = os.pipe2(os.O_CLOEXEC)
        log = os.open(
            self._home / "relay.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        try:
            child = subprocess.Popen(
                [*self._command(), "--port", str(port), "--ready-fd", str(told)],
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[told],
            )
        finally:
            os.close(told)
            os.close(log)
        self._watch(child.pid, child)
        try:
            said = select.select([ready], [], [], PATIENCE)[0] and os.read(ready, 16)
        finally:
            os.close(ready)
        found = self._found()
        if not said or found is None:
            raise SourceError(
                "the way to moorage's own store through the server does not open; see "
                f"{self._home / 'relay.log'}"
            )
        return found[1]

    def _watch(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        """Where it is killed, and mounts need it, there is another one at once."""
        if pid in self._watched:
            return
        self._watched.add(pid)

        def wait() -> None:
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                select.select([descriptor], [], [])
                os.close(descriptor)
            if child is not None:
                child.wait()
            self._watched.discard(pid)
            self.resume()

        threading.Thread(target=wait, name="relay", daemon=True).start()


def _command_of(pid: int) -> list[str]:
    """Without the port and what follows, which are another time's."""
    with suppress(OSError, ValueError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return words[: words.index("--port")]
    return []


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(descriptor, number)
                if select.select([descriptor], [], [], 5.0)[0]:
                    return
        finally:
            os.close(descriptor)
