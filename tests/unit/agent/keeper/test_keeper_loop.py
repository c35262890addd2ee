from __future__ import annotations

import threading

from moorage.agent.keeper import loop as keeperloop
from moorage.agent.keeper.loop import Loop


def test_timers_that_were_cancelled_take_no_room() -> None:
    loop, due = Loop(), []
    loop.later(0.01, lambda: due.append(1))
    for _ in range(5 * keeperloop._MANY):
        loop.later(1e6, loop.stop).cancel()
    assert len(loop._timers) <= keeperloop._MANY
    loop.later(0.02, loop.stop)
    loop.run()
    assert due == [1]


def test_every_call_of_other_threads_is_made() -> None:
    loop, calls, threads, each = Loop(), [], 4, 5000

    def call() -> None:
        calls.append(1)
        if len(calls) == threads * each:
            loop.stop()

    def post() -> None:
        for _ in range(each):
            loop.post(call)

    for _ in range(threads):
        threading.Thread(target=post).start()
    loop.later(60, loop.stop)
    loop.run()
    assert len(calls) == threads * each
