"""This machine as a node: one agent process beside the server, in a session of its own.

The agent outlives a server that is killed; the next server finds it by its lock and goes on with
it, so that there is never a second one.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

AGENT = (sys.executable, "-X", "utf8", "-m", "moorage.agent.main")
LOCK = "lock"
"""Held by the agent (flock) as long as it lives; contains its pid."""
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 30.0
LIVED_WELL = 60.0
"""Seconds after which the end of an agent is no longer taken for a failed start."""
PATIENCE = 1.2
"""Seconds that an agent has to end in good order."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Process:
    """An agent, whether started by this server or found."""

    pid: int
    descriptor: int
    """A pidfd: readable when the process ends, and never somebody else's pid."""
    child: subprocess.Popen[bytes] | None = None

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)

    async def ended(self) -> None:
        """Wait for its end."""
        loop = asyncio.get_running_loop()
        ending = asyncio.Event()
        loop.add_reader(self.descriptor, ending.set)
        try:
            await ending.wait()
        finally:
            loop.remove_reader(self.descriptor)
        if self.child is not None:
            self.child.wait()

    def forget(self) -> None:
        os.close(self.descriptor)
        if self.child is not None and self.child.returncode is None:
            # It goes on without us; otherwise Popen warns that nobody waited for it.
            self.child.returncode = 0


class LocalBackend:
    """Implements `Backend` for the machine that the server runs on."""

    def __init__(
        self,
        home: Path,
        command: Sequence[str] = AGENT,
        options: Sequence[str] = (),
        secrets: Collection[str] = (),
    ) -> None:
        """`command` starts an agent, to which `options` are passed as well, and the environment
        but for the variables in `secrets`."""
        self._secrets = secrets
        self._home = home
        self._command = [*command, *options]
        self._name = _after("--name", options)
        self._directory = home / "agent"
        self._process: _Process | None = None

    async def run(self, url: str) -> None:
        """See `Backend.run`."""
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                process = await self._obtain(url)
            except OSError as error:
                _log.error("the agent cannot be started: %s", error)
            else:
                await self._watch(process)
                _log.warning("the agent (pid %d) ended; see %s", process.pid, self._log_path)
            if time.monotonic() - began > LIVED_WELL:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def stop(self) -> None:
        """See `Backend.stop`."""
        process = self._process
        if process is None:
            return
        self._process = None
        try:
            await _end(process)
        finally:
            process.forget()

    @property
    def _log_path(self) -> Path:
        return self._directory / "log"

    async def _watch(self, process: _Process) -> None:
        self._process = process
        await process.ended()
        self._process = None
        process.forget()

    async def _obtain(self, url: str) -> _Process:
        """The agent that runs, if it serves this address, else a new one."""
        found = self._find()
        if found is not None:
            if _serves(found.pid, url, self._name):
                _log.info("the agent with pid %d goes on", found.pid)
                return found
            _log.info("the agent with pid %d belongs to another address: replaced", found.pid)
            try:
                await _end(found)
            finally:
                found.forget()
        return self._start(url)

    def _find(self) -> _Process | None:
        try:
            descriptor = os.open(self._directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 32, 0).strip()
        else:
            return None
        finally:
            os.close(descriptor)
        try:
            return _Process(int(pid), os.pidfd_open(int(pid)))
        except (ValueError, ProcessLookupError):
            return None  # it is just beginning, or ended meanwhile

    def _start(self, url: str) -> _Process:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        log = os.open(self._log_path, flags, 0o600)
        try:
            child = subprocess.Popen(
                [*self._command, "--server", url, "--home", str(self._home)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={k: v for k, v in os.environ.items() if k not in self._secrets},
                start_new_session=True,
            )
        finally:
            os.close(log)
        return _Process(child.pid, os.pidfd_open(child.pid), child)


def _serves(pid: int, url: str, name: str) -> bool:
    """Whether a process was started for this address, under this name."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return url in arguments and _after("--name", arguments) == name


def _after(option: str, arguments: Sequence[str]) -> str:
    """What follows an option; empty where it is not there."""
    return dict(pairwise(arguments)).get(option, "")


async def _end(process: _Process) -> None:
    """SIGTERM, then SIGKILL: what an agent holds is safe in either case."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        process.signal(number)
        try:
            async with asyncio.timeout(PATIENCE):
                await process.ended()
        except TimeoutError:
            continue
        return
