from __future__ import annotations

import signal
import threading

import pytest

from moorage.cli.ending import Ended, ended_by_signals


def test_the_first_signal_ends_and_a_second_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Ended, match="ended by SIGTERM") as ended, ended_by_signals():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGHUP)
        assert ended.value.exit_code == 143
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, before)


def test_one_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_beside_the_main_thread_nothing_is_caught() -> None:
    seen: list[object] = []

    def work() -> None:
        with ended_by_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
