"""The server of this machine: started in the background by the first command that needs one.

Two commands that race start one server: they queue for a file lock, and the second finds the
server of the first. Readiness is a line through a pipe, never a poll; its end without that means
that the server died, and its log says why.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from moorage.cli.home import Address, from_home, is_alive
from moorage.cli.transport import Transport
from moorage.errors import InvalidInput, Unavailable, Unreachable

if TYPE_CHECKING:
    import subprocess

START_TIMEOUT = 60.0
"""Seconds in which a server must be ready; a cold start on a busy two-core machine takes 3."""
END_TIMEOUT = 5.0
"""Seconds in which a server that did not start must end by itself."""
READY = "ready"
"""What a server writes when it is."""
REFUSAL = "moorage server: "
"""Begins the last words of a server that knows why it ends."""
LOG_LINES = 8
"""How much of the log a failed start shows."""


def running(home: Path) -> Address | None:
    """The address of the server that answers for this home, if one does."""
    address = from_home(home)
    if address is None or not is_alive(address.pid):
        return None
    transport = Transport(replace(address, others=()))  # another one is not this home's
    try:
        transport.connect()
    except Unreachable:
        return None
    finally:
        transport.close()
    return address


def ensure(home: Path, options: Sequence[str] = ()) -> tuple[Address, bool]:
    """The server of this home, and whether this call had to start it, with these options.

    Unreachable, with the last lines of its log, where it does not come up; InvalidInput where
    it refuses its options or settings.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"cannot create {home}: {error.strerror}; set MOORAGE_HOME") from None
    with _starting(home):
        address = running(home)
        if address is not None:
            return address, False
        _start(home, options)
        address = from_home(home)
        if address is None:
            raise Unreachable(f"the server started, but wrote no address to {home}/server.json")
        return address, True


def announce(address: Address) -> None:
    """Tell the user that a process now runs which they did not start by hand."""
    print(
        f"moorage: started a server for this machine on {address.place} "
        "(stop it with: moorage server stop)",
        file=sys.stderr,
    )


def server_command(home: Path) -> list[str]:
    """The command line of a server for this home. Text is UTF-8, whatever the caller's locale."""
    return [sys.executable, "-X", "utf8", "-m", "moorage.server.main", "--home", str(home)]


@contextmanager
def _starting(home: Path) -> Iterator[None]:
    path = home / "start.lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"cannot write {path}: {error.strerror}; set MOORAGE_HOME") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _start(home: Path, options: Sequence[str]) -> None:
    import subprocess  # 3 ms, and most commands find a server

    log_path = home / "server.log"
    began = log_path.stat().st_size if log_path.exists() else 0
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    ready, tell = os.pipe()
    try:
        # The child is never waited for: it outlives this process.
        child = subprocess.Popen(
            [*server_command(home), "--ready-fd", str(tell), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            pass_fds=[tell],
        )
        os.close(tell)
        tell = -1
        if not _is_ready(ready):
            if _ended(child) == InvalidInput.exit_code:
                raise InvalidInput(*_last_words(log_path, began))
            raise Unreachable(_why(log_path, began))
        child.returncode = 0  # ours no longer: without it, Popen warns that it still runs
    finally:
        for descriptor in (log, ready, tell):
            if descriptor >= 0:
                os.close(descriptor)


def _ended(child: subprocess.Popen[bytes]) -> int:
    """The exit code of a server that is ending already, unless it hangs."""
    import subprocess

    with suppress(subprocess.TimeoutExpired):
        return child.wait(END_TIMEOUT)
    child.kill()
    return child.wait()


def _is_ready(ready: int) -> bool:
    """What the server says before it is ready is shown: it waits for something."""
    while select.select([ready], [], [], START_TIMEOUT)[0]:
        said = os.read(ready, 4096).decode(errors="replace").splitlines()
        for line in said:
            if line == READY:
                return True
            print(f"moorage: {line}", file=sys.stderr)
        if not said:
            break
    return False


def _last_words(log_path: Path, began: int) -> list[str]:
    """All problems that the server named at its end, a line each."""
    lines = _written(log_path, began)
    said = [number for number, line in enumerate(lines) if line.startswith(REFUSAL)]
    words = lines[said[-1] :] if said else lines[-1:]
    return [line.removeprefix(REFUSAL) for line in words] or [f"see {log_path}"]


def _written(log_path: Path, began: int) -> list[str]:
    with log_path.open("rb") as log:
        log.seek(began)
        written = log.read().decode(errors="replace").splitlines()
    return [line for line in written if line.strip()][-LOG_LINES:]


def _why(log_path: Path, began: int) -> str:
    lines = _written(log_path, began)
    reason = f"the server did not start; the end of {log_path}:"
    if not lines:
        return f"the server did not start within {START_TIMEOUT:.0f} s and wrote no log"
    if lines[-1].startswith(REFUSAL):
        return f"the server did not start: {lines[-1].removeprefix(REFUSAL)}"
    return "\n".join([reason, *(f"  {line}" for line in lines)])
