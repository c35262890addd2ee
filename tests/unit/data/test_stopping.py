from __future__ import annotations

import asyncio
import subprocess

import pytest

from moorage.data.stopping import Stopper, breaking, current, run_program


def test_a_program_runs_as_with_subprocess() -> None:
    done = run_program(["cat"], input=b"hello", stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, b"hello")
    with pytest.raises(FileNotFoundError):
        run_program(["/no/such/program"])
    with pytest.raises(subprocess.TimeoutExpired):
        run_program(["sleep", "60"], timeout=0.05)


def test_a_thread_is_stopped_with_all_that_its_program_started() -> None:
    async def main() -> int:
        stopper = Stopper()
        current.set(stopper)
        command = ["sh", "-c", "echo up; sleep 60 & wait"]
        running = asyncio.create_task(asyncio.to_thread(run_program, command))
        await asyncio.sleep(0)
        stopper.stop()
        stopper.stop()
        return (await asyncio.wait_for(running, 30)).returncode

    assert asyncio.run(main()) == -15


def test_work_that_begins_after_the_wish_is_broken_at_once() -> None:
    broken: list[int] = []
    stopper = Stopper()
    stopper.stop()
    with stopper.breaking(lambda: broken.append(1)):
        assert broken == [1]
    with breaking(lambda: broken.append(2)):  # nobody to stop it
        assert broken == [1]
