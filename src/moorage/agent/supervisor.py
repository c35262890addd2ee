"""Keeps an agent running on a host without systemd: `main(directory)` in a process of its own.

What to run stands in `plan.json` of the directory, which is read at each start of the agent. The
agent dies with its supervisor, the keeper and its jobs do not. Standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

BOOT = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module('moorage.agent.main', run_name='__main__', alter_sys=True)"
)
"""Starts an agent without site-packages: the first argument is the directory of all it needs."""
LOG_LIMIT = 4 * 1024 * 1024
"""Bytes of the log, and as many of the one before it."""
LOOK = 60.0
"""Seconds between two looks at the log's size."""
PAUSES = (0.2, 30.0)
"""Seconds before the agent is started again: after the first failure, and at most."""
LIVED_WELL = 60.0
"""Seconds after which an agent's end is no longer taken for a failed start."""
PATIENCE = 5.0
"""Seconds that an agent has to end in good order."""
_PR_SET_PDEATHSIG = 1


def command(directory: Path, plan: dict[str, Any]) -> list[str]:
    """The agent's arguments; KeyError for an incomplete plan."""
    lib = directory / "versions" / plan["digest"] / "lib"
    if plan["urls"]:
        where = ["--server", ",".join(plan["urls"])]
        if (authority := directory / "authority.pem").exists() and authority.stat().st_size:
            where += ["--ca", str(authority)]
    else:
        where = ["--tunnel", str(directory / "address")]
    start = [plan["python"], "-I", "-S", "-X", "utf8", "-c", BOOT, str(lib)]
    home = ["--home", str(directory / "home"), "--name", plan["node"]]
    return [*start, *where, *home, *plan["options"]]


class Supervisor:
    """Of the agent in a directory. Signals end it through a pipe, as all waiting is on pipes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._told, teller = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(teller, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def run(self) -> None:
        """Until a signal, or until there is no plan any more."""
        pause, longest = PAUSES
        while True:
            began = time.monotonic()
            try:
                plan = json.loads((self._directory / "plan.json").read_text())
                argv = command(self._directory, plan)
            except (FileNotFoundError, KeyError, ValueError):
                return
            if self._watch(argv):
                return
            if time.monotonic() - began > LIVED_WELL:
                pause = PAUSES[0]
            if self._wait([self._told], pause):
                return
            pause = min(2 * pause, longest)

    def _watch(self, argv: list[str]) -> bool:
        """One agent's life; whether we were told to end. A failed start is in the log."""
        log = _open_log(self._directory / "log")
        try:
            try:
                child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    preexec_fn=_die_with_parent,
                )
            except OSError as error:
                os.write(log, f"the agent cannot be started: {error}\n".encode())
                return False
            ending = os.pidfd_open(child.pid)
            try:
                while not (ready := self._wait([self._told, ending], LOOK)):
                    _bound(log, self._directory / "log.before")
            finally:
                os.close(ending)
            if ending in ready:
                status = child.wait()
                os.write(log, f"the agent ended (status {status}), starting it again\n".encode())
                return self._told in ready
            _end(child)
            return True
        finally:
            os.close(log)

    @staticmethod
    def _wait(descriptors: list[int], seconds: float) -> list[int]:
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        return [descriptor for descriptor, _ in poll.poll(seconds * 1000)]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _open_log(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def _bound(log: int, before: Path) -> None:
    """Move what is there aside when it is much. The agent writes on to the same file, which what
    is written between the copy and the cut is lost for."""
    if os.fstat(log).st_size <= LOG_LIMIT:
        return
    with suppress(OSError):
        before.write_bytes(os.pread(log, LOG_LIMIT, os.fstat(log).st_size - LOG_LIMIT))
        before.chmod(0o600)
    os.ftruncate(log, 0)


def main(directory: str, how: str = "keep") -> None:
    """With `exec`, become the agent, which somebody else keeps; otherwise its supervisor, which
    says `ready` on standard output once it is the only one, or `another` where there is one,
    and goes on without terminal, session or parent."""
    if how == "exec":
        argv = command(Path(directory), json.loads(Path(directory, "plan.json").read_text()))
        os.execv(argv[0], argv)  # noqa: S606
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    lock = os.open(f"{directory}/supervisor", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(1, b"another\n")
        return
    os.ftruncate(lock, os.pwrite(lock, str(os.getpid()).encode(), 0))
    supervisor = Supervisor(Path(directory))
    os.write(1, b"ready\n")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    supervisor.run()
