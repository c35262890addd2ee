"""When a failed job is tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from moorage.specs.task import Task

RetryEvent = Literal["no-capacity", "interruption", "error"]


OnNodeLoss = Literal["restart", "wait", "lost"]


class Retry(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`on_events`: what is retried. `duration`: seconds since the job's first failure in which a
    next attempt may still begin (dstack's default: one hour)."""

    on_events: tuple[RetryEvent, ...] = ("no-capacity", "interruption", "error")
    duration: float = 3600.0


def on_loss_of(task: Task) -> OnNodeLoss:
    """What happens to its jobs on a node that is lost: where nothing is written, the next attempt
    begins where an interruption is retried, and else they wait for the node."""
    if task.on_node_loss is not None:
        return task.on_node_loss
    covered = task.retry is not None and "interruption" in task.retry.on_events
    return "restart" if covered else "wait"
