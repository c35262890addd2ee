"""How far an attempt has got, as its node reports it."""

from __future__ import annotations

from moorage.protocol.agent import Held, Outcome

_ORDER = ("staging", "running", "finishing", "done")


def newer(held: Held, known: Held | None) -> bool:
    """Within one attempt, states and phases are only ever added, and the words about a phase under
    way change."""
    if held.state not in _ORDER:
        return False
    if known is None:
        return True
    ahead, behind = _progress(held), _progress(known)
    return ahead > behind or (ahead == behind and _said(held) != _said(known))


def _said(held: Held) -> list[str]:
    return [phase.detail for phase in held.phases if phase.ended is None]


def _progress(held: Held) -> tuple[int, int, int, bool]:
    finished = sum(phase.ended is not None for phase in held.phases)
    return (_ORDER.index(held.state), len(held.phases), finished, held.outcome is not None)


def began(held: Held) -> float | None:
    """When its process started; None if there is none yet, or never was."""
    return next((phase.began for phase in held.phases if phase.name == "run"), None)


def lasted(held: Held) -> float:
    """Seconds from its process's start to its end, by the node's clock; 0 where none ran."""
    run = next((phase for phase in held.phases if phase.name == "run"), None)
    return 0.0 if run is None or run.ended is None else run.ended - run.began


def outcome_of(held: Held) -> Outcome | None:
    """How it ended; None while that is open."""
    if held.outcome is None and held.state == "done":
        return Outcome("lost", message="its agent did not say how it ended")
    return held.outcome
