from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from moorage.data import stopping
from moorage.data.copies import crew as crews
from moorage.data.copies.crew import Crew, Stalled, Stopped, aside


def test_every_item_once() -> None:
    done: list[int] = []
    Crew(done.append, 4).run(range(100))
    assert sorted(done) == list(range(100))


def test_the_first_error_ends_it_and_nobody_waits_for_the_others() -> None:
    never, began = threading.Event(), threading.Event()

    def work(item: int) -> None:
        if item == 0:
            began.set()
            never.wait(30)
        assert began.wait(30)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        Crew(work, 2).run(range(9))
    never.set()


def test_whoever_works_learns_that_it_is_over() -> None:
    stopper, ended = stopping.Stopper(), threading.Event()

    def work(_item: int) -> None:
        stopper.stop()
        try:
            crew.pause(30)
        except Stopped:
            ended.set()
            crew.check()

    crew: Crew[int] = Crew(work, 1)
    token = stopping.current.set(stopper)
    with pytest.raises(Stopped):
        crew.run([1])
    stopping.current.reset(token)
    assert ended.wait(30)


def test_it_is_given_up_only_where_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only the work moves on, whatever else keeps the machine busy."""
    clock, looked = [0.0], threading.Event()
    waiting = threading.current_thread()

    def now() -> float:
        if threading.current_thread() is waiting:
            looked.set()
        return clock[0]

    def moving(item: int) -> None:
        clock[0] += 0.08
        crew.moved()
        looked.clear()
        assert looked.wait(30)

    monkeypatch.setattr(crews, "time", SimpleNamespace(monotonic=now))
    crew: Crew[int] = Crew(moving, 1)
    crew.run(range(5), patience=0.1)
    monkeypatch.undo()
    last = threading.Event()
    with pytest.raises(Stalled):
        Crew(lambda _item: last.wait(30) and None, 2).run([1], patience=0.1)
    last.set()


def test_an_item_that_cannot_be_had_is_an_error_too() -> None:
    def items():  # type: ignore[no-untyped-def]
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        Crew(lambda _item: None, 3).run(items())


def test_what_is_done_aside_is_given_and_left_where_it_is_stopped() -> None:
    assert aside(lambda: 7) == 7
    never, began, stopper = threading.Event(), threading.Event(), stopping.Stopper()

    def work() -> None:
        began.set()
        never.wait(30)

    def stop() -> None:
        assert began.wait(30)
        stopper.stop()

    token = stopping.current.set(stopper)
    other = threading.Thread(target=stop)
    other.start()
    try:
        with pytest.raises(Stopped):
            aside(work)
    finally:
        stopping.current.reset(token)
        never.set()
        other.join()
