"""SIGTERM and SIGHUP end what would leave something behind as Ctrl-C does: by an exception."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """By a signal, which the exit code tells as shells do."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"ended by {name}; begin again: only what is missing is moved")
        self.exit_code = 128 + number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """The first of them raises `Ended` in the main thread; further ones change nothing, as what is
    to be removed takes some seconds. One that is ignored (nohup) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    caught = [number for number in _SIGNALS if before[number] is signal.SIG_DFL]

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        for one in caught:
            signal.signal(one, signal.SIG_IGN)
        raise Ended(number)

    for number in caught:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in caught:
            if signal.getsignal(number) is end:  # a second one waits for the end of the program
                signal.signal(number, before[number])
