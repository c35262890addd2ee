"""How a run ended: its exit code for the shell, a line for people."""

from __future__ import annotations

from moorage.cli.render import lasted, printable
from moorage.protocol.api import JobView, RunView

SIGNAL_BASE = 128


def exit_code(view: RunView) -> int:
    """The job's own exit code; 128 + N after signal N, and 1 where it failed without either."""
    if view.summary.state == "succeeded":
        return 0
    for job in view.jobs:
        if job.state == "succeeded":
            continue
        if job.exit_code:
            return job.exit_code
        if signal := _signal(job):
            return SIGNAL_BASE + signal
    return view.summary.exit_code or 1


def _signal(job: JobView) -> int:
    """What ended its last attempt; 0 where that was none. Ranks that had to stop because of
    another one tell nothing."""
    last = [one for one in job.attempts if one.attempt == job.attempts[-1].attempt]
    ended = [one.outcome for one in last if one.outcome is not None]
    if len(ended) > 1:
        ended = [outcome for outcome in ended if outcome.kind not in ("stopped", "aborted")]
    return next((outcome.signal for outcome in ended if outcome.signal), 0)


def sentence(view: RunView) -> str:
    """`run train (12) failed after 3m: exit-code: ...`."""
    run = view.summary
    took = lasted(run.started_at, run.ended_at, run.ended_at or run.submitted_at)
    text = f"run {run.name} ({run.id}) {run.state}"
    if run.started_at is not None and run.ended_at is not None:
        text += f" after {took}"
    reason = why(run.reason, run.message)
    return f"{text}: {reason}" if reason and run.state != "succeeded" else text


def why(reason: str, message: str) -> str:
    """Reason and message in one line, without saying the same twice."""
    if message and reason and not message.lower().startswith(reason.lower()):
        return printable(f"{reason}: {message}")
    return printable(message or reason)
