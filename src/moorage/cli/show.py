"""`moorage show`: all about one run."""

from __future__ import annotations

import sys
import time

import click

from moorage.cli.outcome import why
from moorage.cli.render import Style, age, lasted, printable, state_of, style_of
from moorage.cli.session import connect, json_option, naming, print_json, print_lines, run_argument
from moorage.cli.timeline import timeline
from moorage.protocol.api import FINAL_STATES, AttemptView, Away, JobView, RunSummary, RunView
from moorage.specs.show import dump
from moorage.units import format_duration, format_size

LABEL = 10


@click.command()
@run_argument
@json_option
def show(run: str, as_json: bool) -> None:
    """Show all about one run.

    Its state, why it waits or failed, where its time went, and the file that described it.

    \b
    Examples:
      moorage show train
      moorage show 41 --json
    """
    with connect() as client, naming(client, run):
        view = client.run(run)
    if as_json:
        print_json(view)
    else:
        print_lines(describe(view, style_of(sys.stdout), time.time()))


def describe(view: RunView, style: Style, now: float) -> list[str]:
    """The page about a run."""
    lines = _summary(view.summary, style, now)
    for job in view.jobs:
        lines += _job(job, view.summary, style, now, alone=len(view.jobs) == 1)
    lines += ["", style.paint(f"file ({view.dialect})" if view.source else "spec", "bold")]
    # Values of variables may be secrets; the file as written has only those its author wrote down.
    text = view.source or dump(view.spec, inherited=view.spec.env)
    return lines + [f"  {printable(line)}" for line in text.rstrip("\n").split("\n")]


def _field(label: str, value: str) -> str:
    return f"{label:<{LABEL}}{value}"


def _summary(run: RunSummary, style: Style, now: float) -> list[str]:
    state = style.state(state_of(run.state, run.away))
    if run.stopping and run.state not in FINAL_STATES:
        state += " (is being stopped)"
    if run.away is not None:
        state += f": {_contact(run.away, now)}"
    lines = [
        _field("run", f"{style.paint(run.name, 'bold')} ({run.id}) of {printable(run.user)}"),
        _field("state", state),
    ]
    if reason := why(run.reason, run.message):
        lines.append(_field("reason", reason))
    if run.exit_code is not None and run.state != "scheduled":
        lines.append(_field("exit code", str(run.exit_code)))
    lines.append(_field("submitted", _moment(run.submitted_at, now)))
    if run.started_at is not None:
        lines.append(_field("started", _moment(run.started_at, now)))
        if run.state != "scheduled":  # it has no end yet; its jobs have
            lines.append(_field("lasted", lasted(run.started_at, run.ended_at, now)))
    if run.next_at is not None:
        lines.append(_field("next", _moment(run.next_at, now)))
    if run.tags:
        tags = " ".join(f"{key}={value}" for key, value in run.tags.items())
        lines.append(_field("tags", printable(tags)))
    return lines


def _contact(away: Away, now: float) -> str:
    since = "" if away.since is None else f" since {_moment(away.since, now)}"
    return f"no contact with {printable(away.node)}{since}"


def _moment(at: float, now: float) -> str:
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    return f"{clock} ({age(at, now)})"


def _job(job: JobView, run: RunSummary, style: Style, now: float, *, alone: bool) -> list[str]:
    lines = []
    if not alone:
        state = style.state(state_of(job.state, job.away))
        lines += ["", f"{style.paint(f'job {job.index}', 'bold')} {state}"]
        if reason := why(job.reason, job.message):
            lines.append(_field("reason", reason))
    if job.away is not None and not alone:
        lines.append(_field("contact", _contact(job.away, now)))
    if job.waits_for and job.away is None:
        lines.append(_field("waits for", printable(job.waits_for)))
    if job.warning:
        lines.append(_field("warning", printable(job.warning)))
    several = any(attempt.rank for attempt in job.attempts)
    for attempt in job.attempts:
        lines += ["", _attempt(attempt, style, now, several=several)]
        lines += [f"  {line}" for line in timeline(attempt.phases, style, now)]
        if attempt.outcome is not None and attempt.outcome.message:
            message = attempt.outcome.message
            said = [phase.detail for phase in attempt.phases]
            if attempt is job.attempts[-1]:
                said += [job.message, run.message]
            if not any(message in text for text in said):
                lines.append(f"  {printable(message)}")
    return lines


def _attempt(attempt: AttemptView, style: Style, now: float, *, several: bool) -> str:
    """`several`: the job has ranks, each with a part like this."""
    rank = f" rank {attempt.rank}" if several else ""
    head = style.paint(f"attempt {attempt.attempt}{rank}", "bold")
    text = f"{head} on {printable(attempt.node)}, {age(attempt.assigned_at, now)}"
    outcome = attempt.outcome
    if outcome is not None:
        text += f": {outcome.kind}"
        if outcome.exit_code is not None:
            text += f" with {outcome.exit_code}"
        if outcome.signal is not None:
            text += f" by signal {outcome.signal}"
    usage = attempt.usage
    if usage is not None:
        text += f"; {format_duration(usage.cpu_seconds)} of CPU"
        if usage.memory_peak is not None:
            text += f", {format_size(usage.memory_peak)} at most"
    return text
