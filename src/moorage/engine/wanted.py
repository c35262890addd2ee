"""What decisions ask for, sorted by who carries it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from moorage.core.effects import Arm, Effect, Emit, Inquire, Send, Stir, Tidy, Wake, Write
from moorage.ids import NodeId, RunId
from moorage.protocol.agent import ToAgent
from moorage.store.base import Statement

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Wanted:
    """Of one decision, or of several that are one batch."""

    send: Callable[[NodeId, ToAgent], None]
    stir: Callable[[Stir | Tidy | Inquire], None]
    statements: list[Statement] = field(default_factory=list)
    runs: set[RunId | None] = field(default_factory=set)
    """Of which there are events; None for an event of no run."""
    after: list[Callable[[], None]] = field(default_factory=list)
    """What leaves the process once the statements are durable."""
    timers: list[Arm] = field(default_factory=list)
    wake: bool = False

    def add(self, effects: Sequence[Effect], now: float) -> None:
        """Take more effects, in their order."""
        for effect in effects:
            match effect:
                case Write(query, params):
                    self.statements.append(Statement(query, params))
                case Emit(_, run):
                    self.statements.append(_event(effect, now))
                    self.runs.add(run)
                case Send(node, message):
                    self.after.append(partial(self.send, node, message))
                case Arm():
                    self.timers.append(effect)
                case Stir() | Tidy() | Inquire():
                    self.after.append(partial(self.stir, effect))
                case Wake():
                    self.wake = True


def _event(emit: Emit, now: float) -> Statement:
    params = {
        "at": now,
        "kind": emit.kind,
        "run_id": emit.run,
        "job_id": emit.job,
        "node_id": emit.node,
        "data": _encode(emit.data).decode() if emit.data else "{}",
    }
    return Statement("insert_event", params)
