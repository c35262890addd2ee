"""A loop that hangs ends its process; one that works, or a process that was frozen, goes on."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

from moorage.server.watchdog import EXIT_HUNG

PROGRAM = """
import asyncio, sys, threading
from moorage.server import watchdog
watchdog.PERIOD = 0.05

async def main():
    with watchdog.Watchdog(0.5):
        if sys.argv[1] == "hang":
            threading.Event().wait(60)
        print("beats", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print("over", flush=True)

asyncio.run(main())
"""
PATIENCE = 60


def _start(how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_loop_that_hangs_ends_its_process() -> None:
    with _start("hang") as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_HUNG
    assert "the server hangs" in said


def test_a_process_that_was_frozen_goes_on() -> None:
    with _start("work") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "beats\n"
        os.kill(process.pid, signal.SIGSTOP)
        watched = os.pidfd_open(process.pid)
        try:
            assert not select.select([watched], [], [], 1.0)[0]
            os.kill(process.pid, signal.SIGCONT)
            assert not select.select([watched], [], [], 0.5)[0]
        finally:
            os.close(watched)
        said, _ = process.communicate("", timeout=PATIENCE)
    assert (process.returncode, said) == (0, "over\n")
