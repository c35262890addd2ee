"""What an exit record means to the user: a kind, a code, and one line that says what did what."""

from __future__ import annotations

import signal as signals

from moorage.agent.keeping import Cause, ExitRecord, SpawnError
from moorage.protocol.agent import Launch, Outcome, OutcomeKind, PhaseName, Usage
from moorage.units import duration_text, format_size

_SHOWN = 60
"""Characters of a command in a message."""
_NEVER_STARTED = "its process was never started: the keeper or the agent died before"
FENCED = "ended by its node, which had no contact to the server for most of its lease"
UNREADABLE = Outcome(
    "lost", message="its record cannot be read by this agent, so its process was ended"
)
_OF_NODES = frozenset({"mount", "cgroup", "output", "keeper", "hold"})
"""Steps of a start that fail because of the node."""
_SHELL_SIGNAL = 128
"""A shell ends with this plus the number of the signal that killed its command."""


def outcome(launch: Launch, record: ExitRecord) -> Outcome:
    """How the attempt ended, as far as its process is concerned."""
    code, signal = record.exit_code, record.signal
    if signal is None and code is not None and _is_signal(code - _SHELL_SIGNAL):
        signal = code - _SHELL_SIGNAL
    what = _command(launch, record)
    left = _left(record.left)
    if record.cause == "out-of-memory":
        return Outcome("out-of-memory", code, signal, message=_out_of_memory(launch, record, what))
    if record.cause == "timeout":
        limit = duration_text(launch.max_duration or 0.0)
        return Outcome("timeout", code, signal, message=f"ran longer than max_duration {limit}")
    if record.cause == "stopped":
        return Outcome("stopped", code, signal)
    if record.cause == "aborted":
        return Outcome("aborted", code, signal)
    if record.cause == "fenced":
        return Outcome("node-lost", code, signal, message=FENCED)
    if record.cause == "rebooted":
        return Outcome("lost", message="the node was rebooted while it ran")
    if record.cause == "unstarted":
        return Outcome("unstarted", message=_NEVER_STARTED)
    if record.cause == "lost" or record.status is None:
        return Outcome("lost", message="the keeper of the process died, so its end is unknown")
    if signal is not None:
        return Outcome(
            "signaled", code, signal, message=f"{what} was killed by {signal_name(signal)}{left}"
        )
    if code:
        message = f"{what} failed with exit code {code}{left}"
        return Outcome("exited", code, message=message)
    return Outcome("exited", code, message=left.removeprefix("; "))


def without_process(cause: Cause) -> Outcome:
    """A wish came before the process."""
    if cause == "fenced":
        return Outcome("node-lost", message=FENCED)
    kind: OutcomeKind = "aborted" if cause == "aborted" else "stopped"
    return Outcome(kind, message="stopped before its process was started")


def not_spawned(error: SpawnError, contained: bool) -> Outcome:
    """The keeper could not, or would not, start it. `contained`: in a container."""
    if error.step == "fence":
        return Outcome("node-lost", message=FENCED)
    phase: PhaseName = "mount" if error.step == "mount" else "run"
    # A working directory that is missing in an image is missing wherever that is used.
    here = error.step in _OF_NODES or (error.step == "cwd" and not contained)
    return Outcome("phase-failed", phase=phase, message=str(error), here=here)


def not_flushed(before: Outcome, wrong: Outcome) -> Outcome:
    """What it wrote could not be saved; how its process ended is told too."""
    ended = f"{wrong.message}; before that, {before.message}" if before.message else wrong.message
    return Outcome("not-flushed", before.exit_code, before.signal, "flush", ended)


def usage(record: ExitRecord) -> Usage:
    """What the process tree consumed."""
    return Usage(record.cpu_seconds, record.memory_peak)


def signal_name(number: int) -> str:
    """`SIGSEGV`; `signal 40` where it has no name."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _is_signal(number: int) -> bool:
    try:
        signals.Signals(number)
    except ValueError:
        return False
    return number < signals.SIGRTMIN


def _left(number: int) -> str:
    if not number:
        return ""
    what = "1 process was" if number == 1 else f"{number} processes were"
    return f"; {what} left behind and killed"


def _command(launch: Launch, record: ExitRecord) -> str:
    """`command 2 of 3 (python train.py)`."""
    number, total = record.command, len(launch.commands)
    if number is None or not 1 <= number <= total:
        return "the process"
    text = " ".join(launch.commands[number - 1].split())
    if len(text) > _SHOWN:
        text = text[: _SHOWN - 1] + "…"
    return f"command {number} of {total} ({text})"


def _out_of_memory(launch: Launch, record: ExitRecord, what: str) -> str:
    limit, peak = launch.limits.memory, record.memory_peak
    bound = "the node had none left" if limit is None else f"the limit was {format_size(limit)}"
    if peak is not None:
        bound += f", peak {format_size(peak)}"
    if record.exit_code is None or record.exit_code == _SHELL_SIGNAL + signals.SIGKILL:
        return f"out of memory: {bound}; {what} was killed"
    return f"out of memory: {bound}; {what} failed after the kernel killed a process of it"
