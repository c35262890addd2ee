"""What is told of the mounts of jobs."""

from __future__ import annotations

from typing import Any

from moorage.core.effects import Emit
from moorage.core.job import Live, ranks_of
from moorage.core.reactor import on_report
from moorage.protocol.agent import Held, Phase, Report
from moorage.protocol.mounts import MountHealth


def held(key: str, *mounts: MountHealth, flush: MountHealth | None = None) -> Held:
    """A job that runs, or flushes."""
    text = "; ".join(f"{one.target} {one.message}" for one in mounts)
    phases = [Phase("claim", 1.0, 2.0)]
    phases.append(Phase("run", 5.0, 9.0 if flush else None, text, list(mounts)))
    if flush is None:
        return Held(key, "running", phases)
    return Held(key, "finishing", [*phases, Phase("flush", 9.0, None, flush.message, [flush])])


def told(effects: Any) -> list[tuple[str, dict[str, Any]]]:
    return [
        (effect.kind, dict(effect.data))
        for effect in effects
        if isinstance(effect, Emit) and effect.kind.startswith("mount.")
    ]


def test_restarts_stalls_and_their_end(desk: Any) -> None:
    desk.started()
    message = "stalled: store lab has not answered for 5.0s"
    stalled = MountHealth("/data", message, 0, 90.0)
    again = MountHealth("/data", message.replace("5.0", "7.5"), 0, 90.0)
    [(kind, data)] = told(desk.report(held("1.1.0", stalled)))
    assert (kind, data) == (
        "mount.stalled",
        {"target": "/data", "message": message, "attempt": 1},
    )
    assert told(desk.report(held("1.1.0", again))) == []
    desk.now = 100.0
    restarted = MountHealth("/data", "restarted once: it hung", 1)
    assert [kind for kind, _ in told(desk.report(held("1.1.0", restarted)))] == [
        "mount.restarted",
        "mount.back",
    ]
    twice = MountHealth("/data", "restarted 2 times: it hung", 2)
    [(kind, data)] = told(desk.report(held("1.1.0", twice)))
    assert (kind, data["times"]) == ("mount.restarted", 2)


def test_an_fsync_that_failed(desk: Any) -> None:
    desk.started()
    message = "fsync failed once, the last of model.pt: denied"
    failed = MountHealth("/data", message, unstored=1)
    [(kind, data)] = told(desk.report(held("1.1.0", failed)))
    assert (kind, data["times"], data["message"]) == ("mount.fsync-failed", 1, message)
    assert told(desk.report(held("1.1.0", failed))) == []


def test_what_lasts_into_the_flush_is_not_told_twice(desk: Any) -> None:
    desk.started()
    stalled = MountHealth("/data", "stalled", 0, 90.0)
    desk.report(held("1.1.0", stalled))
    assert told(desk.report(held("1.1.0", stalled, flush=stalled))) == []
    back = MountHealth("/data", "waited 20s")
    desk.now = 110.0
    [(kind, data)] = told(desk.report(held("1.1.0", stalled, flush=back)))
    assert (kind, data) == ("mount.back", {"target": "/data", "after": 20.0, "attempt": 1})


def test_of_a_gang_the_rank_is_told(desk: Any) -> None:
    desk.hello(node="a")
    desk.hello(node="b")
    desk.submit(nodes=2)
    (job,) = desk.cluster.jobs.values()
    desk.schedule()
    assert isinstance(job.state, Live)
    node = ranks_of(job.state)[1].node
    mount = MountHealth("/data", "restarted once: it hung", 1)
    report = Report(1, [held(job.rank_key(1), mount)])
    [(kind, data)] = told(on_report(desk.cluster, node, report, desk.now))
    assert (kind, data["rank"], data["times"]) == ("mount.restarted", 1, 1)
