"""What became of the mounts of a job while it runs: restarts, stores that do not answer, and their
end, as events. Reports carry how mounts are, not what happened, so what is told is the difference:
what came and went between two of them is told by its count or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from moorage.core.effects import Emit
from moorage.core.job import Job, Live
from moorage.ids import NodeId
from moorage.protocol.agent import Held
from moorage.protocol.mounts import MountHealth


def mount_events(
    job: Job, node: NodeId, known: Held | None, held: Held, now: float, rank: int = 0
) -> list[Emit]:
    """`mount.restarted`, `mount.fsync-failed`, `mount.stalled` and `mount.back`."""
    before = _by_target(known)
    found = []
    for target, health in _by_target(held).items():
        was = before.get(target, MountHealth(target))
        for kind, more in _differences(was, health, now):
            data = {"target": target, **more}
            if job.gang:
                data["rank"] = rank
            if isinstance(job.state, Live):
                data["attempt"] = job.state.attempt
            found.append(Emit(kind, job.run, job.id, node, data))
    return found


def _differences(
    was: MountHealth, health: MountHealth, now: float
) -> Iterable[tuple[str, dict[str, Any]]]:
    if health.restarts > was.restarts:
        yield "mount.restarted", {"times": health.restarts, "message": health.message}
    if health.unstored > was.unstored:
        yield "mount.fsync-failed", {"times": health.unstored, "message": health.message}
    if health.stalled is not None and was.stalled is None:
        yield "mount.stalled", {"message": health.message}
    if health.stalled is None and was.stalled is not None:
        yield "mount.back", {"after": round(max(0.0, now - was.stalled), 1)}


def _by_target(held: Held | None) -> dict[str, MountHealth]:
    """As the last phase says that says anything."""
    phases = () if held is None else held.phases
    return {health.target: health for phase in phases for health in phase.mounts}
