"""Looks after the node's health: its GPUs, and the check of its fleet's administrator.

The check is a command of its own, in a process group of its own, with a deadline. One that even
SIGKILL does not end (the kernel holds it) is a failure, and no second one is started beside it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import NamedTuple

from moorage.agent.gpus.base import Unreadable
from moorage.agent.gpus.devices import Devices
from moorage.agent.gpus.health import ORDER, examine
from moorage.protocol.health import CheckHealth, GpuHealth, Health, HealthState

log = logging.getLogger("moorage.agent")

GPU_INTERVAL = 60.0
_GPU_PATIENCE = 20.0
WARNING_CODE = 75
"""EX_TEMPFAIL: not well, and not so bad that jobs must stay away."""
_LAST_WORD = 2.0
"""Seconds in which a killed check must be gone."""
_LONGEST = 300
"""Characters of a reason."""
_KEPT = 65_536
"""Bytes of output in which the last line is looked for."""


class Finding(NamedTuple):
    """What one check came to."""

    state: HealthState
    reason: str = ""


class Caretaker:
    """`tell` gets the node's health, on the loop's thread, when it changes or is asked for."""

    def __init__(self, tell: Callable[[Health], None]) -> None:
        self._tell = tell
        self._check = CheckHealth()
        self._found = Finding("healthy")
        self._gpus: list[GpuHealth] = []
        self._driver = Finding("healthy")
        self._told: Health | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._unknown: set[str] = set()
        """Tasks that have come to no finding yet: until then nothing is said."""

    def watch(self, devices: Devices) -> None:
        """Look after these GPUs from now on."""
        if any(gpu.vendor == "nvidia" for gpu in devices.gpus.values()):
            self._begin("gpus", self._watch(devices))

    def check(self, wanted: CheckHealth) -> None:
        """Run this from now on, and say how the node is."""
        if wanted != self._check:
            self._check, self._found = wanted, Finding("healthy")
            if old := self._tasks.pop("check", None):
                old.cancel()
            self._unknown.discard("check")
            if wanted.command:
                self._begin("check", self._repeat(wanted))
        self._told = None
        self._say()

    def _begin(self, name: str, work: Coroutine[None, None, None]) -> None:
        self._unknown.add(name)
        self._tasks[name] = asyncio.create_task(work)

    async def leave(self) -> None:
        """End everything, a check that runs included."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    async def _watch(self, devices: Devices) -> None:
        while True:
            try:
                self._gpus = await asyncio.to_thread(examine, devices, _GPU_PATIENCE)
                self._driver = Finding("healthy")
            except Unreadable as error:
                # What is known of single GPUs stays. Once may be a busy machine; twice is none.
                again = self._driver.state != "healthy"
                self._driver = Finding("failure" if again else "warning", str(error))
            self._unknown.discard("gpus")
            self._say()
            await asyncio.sleep(GPU_INTERVAL)

    async def _repeat(self, wanted: CheckHealth) -> None:
        program = Program(wanted)
        while True:
            self._found = await program.run()
            self._unknown.discard("check")
            self._say()
            await asyncio.sleep(wanted.interval)

    def _say(self) -> None:
        if self._unknown:
            return
        health = combine((self._found, self._driver), self._gpus)
        if health != self._told:
            if health.state != "healthy":
                log.warning("health: %s: %s", health.state, health.reason)
            self._told = health
            self._tell(health)


def combine(found: Iterable[Finding], gpus: list[GpuHealth]) -> Health:
    """The worst of all, with every reason of that kind. A GPU that failed is only a warning about
    its node, whose other GPUs work on."""
    parts = [finding for finding in found if finding.state != "healthy"]
    parts += [Finding("warning", f"GPU {gpu.index}: {gpu.reason}") for gpu in gpus]
    worst = max((part.state for part in parts), key=ORDER.index, default=ORDER[0])
    reasons = [part.reason for part in parts if part.state == worst]
    return Health(worst, "; ".join(reasons)[:_LONGEST], gpus)


class Program:
    """One check, run again and again, never twice at a time."""

    def __init__(self, wanted: CheckHealth) -> None:
        self._wanted = wanted
        self._left: asyncio.subprocess.Process | None = None

    async def run(self) -> Finding:
        """Run it once; its last line is the reason."""
        if self._left is not None and self._left.returncode is None:
            return Finding("failure", "the last health check cannot be ended")
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                self._wanted.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return Finding("failure", f"the health check cannot be started: {error.strerror}")
        self._left = process
        try:
            async with asyncio.timeout(self._wanted.timeout):
                last = await _last_line(process)
                code = await process.wait()
        except TimeoutError:
            return Finding("failure", f"no answer within {self._wanted.timeout:g} s")
        finally:
            await _end(process)
        return judge(code, last)


def judge(code: int, last: str) -> Finding:
    """What an exit code means."""
    if code == 0:
        return Finding("healthy")
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    reason = last or f"the health check ended with {how}"
    return Finding("warning" if code == WARNING_CODE else "failure", reason)


async def _last_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    kept = b""
    while more := await process.stdout.read(_KEPT):
        kept = (kept + more)[-_KEPT:]
    lines = kept.decode(errors="replace").strip().splitlines()
    return " ".join(lines[-1].split())[:_LONGEST] if lines else ""


async def _end(process: asyncio.subprocess.Process) -> None:
    """It and all that it started and left in its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORD):
            await process.wait()
