from __future__ import annotations

import asyncio
import time

from moorage.core.effects import Timer
from moorage.engine.timers import Timers


def test_fires_in_order_and_once() -> None:
    async def scenario() -> list[int]:
        fired: list[int] = []
        done = asyncio.Event()

        def fire(timer: Timer) -> None:
            fired.append(timer.id)
            if timer.id == 3:
                done.set()

        timers = Timers(time.time, fire)
        now = time.time()
        timers.arm(Timer("retry", 3), now + 0.03)
        timers.arm(Timer("retry", 1), now + 0.01)
        timers.arm(Timer("retry", 2), now + 0.02)
        async with asyncio.timeout(30):
            await done.wait()
        timers.close()
        return fired

    assert asyncio.run(scenario()) == [1, 2, 3]


def test_arming_again_replaces() -> None:
    async def scenario() -> list[Timer]:
        fired: list[Timer] = []
        done = asyncio.Event()

        def fire(timer: Timer) -> None:
            fired.append(timer)
            if timer.kind == "cron":
                done.set()

        timers = Timers(time.time, fire)
        now = time.time()
        timers.arm(Timer("retry", 1), now + 0.01)
        timers.arm(Timer("retry", 1), now + 0.02)
        timers.arm(Timer("cron", 1), now + 0.03)
        async with asyncio.timeout(30):
            await done.wait()
        timers.close()
        return fired

    assert asyncio.run(scenario()) == [Timer("retry", 1), Timer("cron", 1)]


def test_a_past_time_fires_at_once_and_close_forgets() -> None:
    async def scenario() -> list[Timer]:
        fired: list[Timer] = []
        done = asyncio.Event()

        def fire(timer: Timer) -> None:
            fired.append(timer)
            done.set()

        timers = Timers(time.time, fire)
        timers.arm(Timer("retry", 1), 0.0)
        async with asyncio.timeout(30):
            await done.wait()
        timers.arm(Timer("retry", 2), 0.0)
        timers.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return fired

    assert asyncio.run(scenario()) == [Timer("retry", 1)]
