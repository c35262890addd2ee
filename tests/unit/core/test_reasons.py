from __future__ import annotations

import pytest

from moorage.core.job import Event, Stopping
from moorage.core.reasons import judge
from moorage.protocol.agent import Outcome


def outcome(kind: str, **told) -> Outcome:
    return Outcome(kind, **told)


@pytest.mark.parametrize(
    ("told", "reason", "message", "code", "retry"),
    [
        (
            outcome("exited", exit_code=1, message="command 2 of 3 failed with exit code 1"),
            "exit-code",
            "command 2 of 3 failed with exit code 1",
            1,
            "error",
        ),
        (outcome("exited", exit_code=7), "exit-code", "exited with code 7", 7, "error"),
        (outcome("signaled", signal=11), "signal", "killed by SIGSEGV", 139, "error"),
        (outcome("signaled", signal=250), "signal", "killed by signal 250", 378, "error"),
        (outcome("signaled"), "signal", "killed by signal None", None, "error"),
        (
            outcome("out-of-memory", signal=9, message="out of memory: command 1 of 2"),
            "out-of-memory",
            "out of memory: command 1 of 2",
            137,
            "error",
        ),
        (
            outcome("timeout", exit_code=0),
            "timeout",
            "ran longer than `max_duration`",
            124,
            None,
        ),
        (
            outcome("phase-failed", phase="fetch", message="blob is missing"),
            "phase-failed",
            "the fetch phase failed: blob is missing",
            None,
            "error",
        ),
        (outcome("phase-failed"), "phase-failed", "the data phase failed", None, "error"),
        (
            outcome("not-flushed", exit_code=0, phase="flush", message="disk is full"),
            "not-flushed",
            "the flush phase failed: disk is full",
            None,
            None,
        ),
        (
            outcome("lost", message="node rebooted"),
            "lost",
            "node rebooted",
            None,
            "interruption",
        ),
    ],
)
def test_failures(told, reason, message, code, retry):
    verdict = judge(told, Stopping.NO)
    assert verdict.event is Event.FAIL
    assert (verdict.ending.reason, verdict.ending.message) == (reason, message)
    assert (verdict.ending.exit_code, verdict.retry) == (code, retry)
    assert judge(told, Stopping.STOP).retry is None


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (outcome("stopped", signal=15), 143),
        (outcome("stopped", exit_code=0), 143),
        (outcome("stopped", exit_code=3), 3),
        (outcome("aborted", signal=9), 137),
        (outcome("aborted"), 137),
    ],
)
def test_what_a_user_stopped_is_cancelled(told, code):
    verdict = judge(told, Stopping.STOP)
    assert (verdict.event, verdict.retry) == (Event.CANCEL, None)
    assert (verdict.ending.reason, verdict.ending.exit_code) == (told.kind, code)


def test_success_has_no_reason_even_if_a_stop_came_too_late():
    verdict = judge(outcome("exited", exit_code=0), Stopping.ABORT)
    assert verdict.event is Event.SUCCEED
    assert verdict.ending.reason == verdict.ending.message == ""


def test_lost_after_an_abort_is_aborted():
    verdict = judge(outcome("lost", message="node rebooted"), Stopping.ABORT)
    assert verdict.event is Event.CANCEL
    assert verdict.ending.reason == "aborted"
    assert verdict.ending.message == "a user stopped it without grace; node rebooted"
