from __future__ import annotations

from typing import Any

import pytest

from moorage.agent.keeping import ExitRecord, SpawnError
from moorage.agent.verdict import not_spawned, outcome, usage
from moorage.protocol.agent import Launch, Limits, Outcome, Usage

COMMANDS = ["make", "python  train.py\n--lr 1 " + "x" * 80, "echo done"]


def told(limits: Limits | None = None, **fields: Any) -> Outcome:
    launch = Launch(
        run=1,
        run_name="r",
        user="u",
        job=1,
        index=0,
        attempt=1,
        commands=COMMANDS,
        limits=limits or Limits(),
        max_duration=5400,
    )
    shape: dict[str, Any] = {
        "status": 0,
        "exit_code": None,
        "signal": None,
        "cause": None,
        "began": 1.0,
        "ended": 2.0,
        "command": 2,
    }
    return outcome(launch, ExitRecord(**shape | fields))


@pytest.mark.parametrize(
    ("step", "contained", "here"),
    [
        ("mount", False, True),
        ("mount", True, True),
        ("cgroup", False, True),
        ("output", False, True),
        ("keeper", True, True),
        ("cwd", False, True),
        ("cwd", True, False),
        ("exec", False, False),
    ],
)
def test_a_start_that_another_node_may_manage(step: str, contained: bool, here: bool) -> None:
    told = not_spawned(SpawnError("it cannot", step), contained)
    assert (told.kind, told.message, told.here) == ("phase-failed", "it cannot", here)


def test_success_says_nothing() -> None:
    assert told(exit_code=0) == Outcome("exited", 0)
    assert told(exit_code=0, left=2).message == "2 processes were left behind and killed"


def test_a_failed_command_is_named_and_shortened() -> None:
    found = told(exit_code=3, left=1)
    assert (found.kind, found.exit_code) == ("exited", 3)
    start, _, end = found.message.partition("…")
    assert start.startswith("command 2 of 3 (python train.py --lr 1 xxx")
    assert end == ") failed with exit code 3; 1 process was left behind and killed"


@pytest.mark.parametrize("number", [None, 0, 4])
def test_an_unknown_command_is_not_guessed(number: int | None) -> None:
    assert told(exit_code=1, command=number).message == "the process failed with exit code 1"


def test_a_reboot_is_not_called_the_keepers_death() -> None:
    assert told(cause="rebooted", status=None) == Outcome(
        "lost", message="the node was rebooted while it ran"
    )
    assert "keeper" in told(cause="lost", status=None).message


def test_signals() -> None:
    found = told(signal=11, command=1)
    assert (found.kind, found.signal, found.exit_code) == ("signaled", 11, None)
    assert found.message == "command 1 of 3 (make) was killed by SIGSEGV"
    found = told(exit_code=139, command=1)
    assert (found.kind, found.signal, found.exit_code) == ("signaled", 11, 139)
    assert told(exit_code=255).kind == "exited"
    assert told(exit_code=128).kind == "exited"
    assert told(signal=40).message.endswith("killed by signal 40")


def test_out_of_memory() -> None:
    limits = Limits(memory=2 << 30)
    fields: dict[str, Any] = {"cause": "out-of-memory", "oom_kills": 1, "command": 1}
    found = told(limits, exit_code=137, memory_peak=2 << 30, **fields)
    assert found.kind == "out-of-memory"
    start = "out of memory: the limit was 2.0 GB, peak 2.0 GB; command 1 of 3 (make) "
    assert found.message == start + "was killed"
    found = told(limits, exit_code=1, memory_peak=2 << 30, **fields)
    assert found.message == start + "failed after the kernel killed a process of it"
    found = told(signal=9, **fields)
    assert (
        found.message == "out of memory: the node had none left; command 1 of 3 (make) was killed"
    )


def test_what_others_decided() -> None:
    assert told(signal=15, cause="stopped") == Outcome("stopped", None, 15)
    assert told(signal=9, cause="aborted").kind == "aborted"
    assert told(exit_code=0, cause="timeout").message == "ran longer than max_duration 1h30m"
    assert told(status=None, cause="lost").kind == "lost"


def test_usage() -> None:
    record = ExitRecord(0, 0, None, None, 1.0, 2.0, cpu_seconds=1.5, memory_peak=7)
    assert usage(record) == Usage(1.5, 7)
