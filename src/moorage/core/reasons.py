"""How each kind of outcome is judged and told: the one table of reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from signal import Signals
from types import MappingProxyType

from moorage.core.job import Ending, Event, Stopping
from moorage.protocol.agent import Outcome, OutcomeKind
from moorage.specs.retry import RetryEvent


@dataclass(frozen=True, slots=True)
class Rule:
    """`reason`: the word for programs. `retry`: the event of a retry policy that it counts as, if
    any. `exit_code`: where the process left none (None: there is none to tell)."""

    event: Event
    reason: str
    retry: RetryEvent | None
    exit_code: int | None
    meaning: str


RULES: Mapping[OutcomeKind, Rule] = MappingProxyType(
    {
        "exited": Rule(
            Event.FAIL, "exit-code", "error", None, "a command ended with a code other than 0"
        ),
        "signaled": Rule(
            Event.FAIL, "signal", "error", None, "killed by a signal that moorage did not send"
        ),
        "out-of-memory": Rule(
            Event.FAIL,
            "out-of-memory",
            "error",
            137,
            "killed by the kernel at its memory limit, or because the node had no memory left",
        ),
        "timeout": Rule(Event.FAIL, "timeout", None, 124, "ran longer than `max_duration`"),
        "stopped": Rule(Event.CANCEL, "stopped", None, 143, "a user stopped it"),
        "aborted": Rule(Event.CANCEL, "aborted", None, 137, "a user stopped it without grace"),
        "phase-failed": Rule(
            Event.FAIL,
            "phase-failed",
            "error",
            None,
            "its files, repository or volumes could not be provided; no command ran",
        ),
        "not-flushed": Rule(
            Event.FAIL, "not-flushed", None, None, "it ran, but its data could not be saved"
        ),
        "lost": Rule(
            Event.FAIL,
            "lost",
            "interruption",
            None,
            "nobody can know how it ended: the node was rebooted or its keeper died",
        ),
        "node-lost": Rule(
            Event.FAIL,
            "lost",
            "interruption",
            None,
            "its node was without contact for longer than its lease",
        ),
        "unstarted": Rule(
            Event.FAIL,
            "lost",
            "interruption",
            None,
            "its process was never started: its agent or keeper died before",
        ),
    }
)
"""`exited` with code 0 is a success and has no reason."""

SUCCESS = Ending("", "", 0)
_WITH_NODE = frozenset({"lost", "node-lost"})
"""Also of a node that was booted again before its lease was over."""
_GONE = frozenset({"lost", "node-lost", "unstarted"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an outcome means for the job; `retry` as in `Rule`, None where a user stopped it."""

    event: Event
    retry: RetryEvent | None
    ending: Ending
    lost: bool = False
    """Gone with its node: `on_node_loss` says what follows."""


def judge(outcome: Outcome, stopping: Stopping) -> Verdict:
    """The verdict on an attempt of which nothing is left."""
    if outcome.kind == "exited" and outcome.exit_code == 0:
        return Verdict(Event.SUCCEED, None, SUCCESS)
    rule = RULES[outcome.kind]
    ending = Ending(rule.reason, _message(outcome), _exit_code(outcome, rule))
    if not stopping:
        return Verdict(rule.event, rule.retry, ending, lost=outcome.kind in _WITH_NODE)
    if outcome.kind in _GONE:  # the user wanted it gone, and gone it is
        wish = RULES["aborted" if stopping == Stopping.ABORT else "stopped"]
        told = Ending(wish.reason, f"{wish.meaning}; {ending.message}", wish.exit_code)
        return Verdict(Event.CANCEL, None, told)
    return Verdict(rule.event, None, ending)


def stopped_before_start(last: Ending | None) -> Ending:
    """The end of a job that a user stopped while it was queued; `last`: an attempt before."""
    if last is None:
        return Ending("stopped", "stopped by a user before it started", None)
    message = f"stopped by a user while it waited to be tried again; {last.message}"
    return Ending("stopped", message, last.exit_code)


def schedule_stopped() -> Ending:
    """The end of a run with a schedule, whatever its jobs did before."""
    return Ending("stopped", "a user ended its schedule", None)


def _exit_code(outcome: Outcome, rule: Rule) -> int | None:
    """The shell's convention. Never 0: what did not succeed must not look so to a script."""
    if outcome.kind in ("out-of-memory", "timeout"):
        return rule.exit_code
    if outcome.signal:
        return 128 + outcome.signal
    return outcome.exit_code or rule.exit_code


def _message(outcome: Outcome) -> str:
    """The agent's line, which knows best; where it has none, what the outcome itself tells."""
    told = outcome.message
    match outcome.kind:
        case "phase-failed" | "not-flushed":
            failed = f"the {outcome.phase or 'data'} phase failed"
            return f"{failed}: {told}" if told else failed
        case "exited":
            return told or f"exited with code {outcome.exit_code}"
        case "signaled":
            return told or f"killed by {_signal_name(outcome.signal)}"
        case _:
            return told or RULES[outcome.kind].meaning


def _signal_name(number: int | None) -> str:
    try:
        return Signals(number or 0).name
    except ValueError:
        return f"signal {number}"
