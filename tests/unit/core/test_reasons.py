from __future__ import annotations

import pytest

from moorage.core.job import Event, Stopping
from moorage.core.reasons import judge
from moorage.protocol.agent import Outcome
from moorage.specs.resources import Range, Resources
from moorage.specs.task import Task

TASK = Task(resources=Resources(memory=Range(1 << 30, 4 << 30)), max_duration=5400.0)


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
            outcome("out-of-memory", signal=9, message="command 1 of 2"),
            "out-of-memory",
            "out of memory at its limit of 4.0 GB (resources.memory): command 1 of 2",
            137,
            "error",
        ),
        (
            outcome("timeout", exit_code=0),
            "timeout",
            "ran longer than its max_duration of 1h30m",
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
            "its data could not be saved (flush phase): disk is full",
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
    verdict = judge(told, TASK, Stopping.NO)
    assert verdict.event is Event.FAIL
    assert (verdict.ending.reason, verdict.ending.message) == (reason, message)
    assert (verdict.ending.exit_code, verdict.retry) == (code, retry)
    assert judge(told, TASK, Stopping.STOP).retry is None


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
    verdict = judge(told, TASK, Stopping.STOP)
    assert (verdict.event, verdict.retry) == (Event.CANCEL, None)
    assert (verdict.ending.reason, verdict.ending.exit_code) == (told.kind, code)


def test_success_has_no_reason_even_if_a_stop_came_too_late():
    verdict = judge(outcome("exited", exit_code=0), TASK, Stopping.ABORT)
    assert verdict.event is Event.SUCCEED
    assert verdict.ending.reason == verdict.ending.message == ""


def test_lost_after_an_abort_is_aborted():
    verdict = judge(outcome("lost", message="node rebooted"), TASK, Stopping.ABORT)
    assert verdict.event is Event.CANCEL
    assert verdict.ending.reason == "aborted"
    assert verdict.ending.message == "a user stopped it without grace; node rebooted"


def test_without_limits_the_message_names_none():
    told = judge(outcome("out-of-memory"), Task(), Stopping.NO)
    assert told.ending.message == "out of memory: the node had none left"
    told = judge(outcome("timeout"), Task(), Stopping.NO)
    assert told.ending.message == "ran longer than `max_duration`"
