"""All faults end: then every run ends too, and nothing is left of any."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorage.protocol.api import FINAL_STATES
from sim.node import OK
from sim.promises import require

if TYPE_CHECKING:
    from sim.world import World

ROUNDS = 20_000
PATIENCE = 6
"""Rounds without any event: each lets every attempt get on by one state, every delay pass."""


def heal(world: World) -> None:
    """Users stop what never ends by itself. What they stopped ends only by its Stop: so one that
    went missing is found."""
    _mend(world)
    for run in list(world.leader.cluster.runs.values()):
        if run.task.schedule is not None or "forever" in run.task.commands:
            world.do_cancel(run.name, False)
    still, before = 0, None
    for _ in range(ROUNDS):
        _round(world)
        now = world.disk.rows("max_seq")[0]["seq"]
        still, before = (still + 1, before) if now == before else (0, now)
        if _quiet(world) or still > PATIENCE:
            break
    world.promises.everything()
    _nothing_is_left(world)


def _mend(world: World) -> None:
    world.do_boot()
    world.do_depose()
    world.calm = True
    for name, node in world.nodes.items():
        world.do_thaw(name)
        world.do_heal(name)
        world.do_full(name, False)
        world.do_lack(name, False)
        node.until = node.until or world.now
        world.do_begin(name)
        world.do_bury(name)
        while world.stale[name]:
            world.do_arrive(name, True)
        if node.connection is not None and node.connection.server is not world.leader:
            world.do_break(name, True)


def _round(world: World) -> None:
    world.now += 60
    world.do_ring()
    world.do_pass()
    world.do_commit(100_000)
    for name, node in world.nodes.items():
        world.do_hangup(name)
        world.do_connect(name)
        while world.do_arrive(name):
            pass
        world.do_commit(100_000)
        world.do_deliver(name)
        for key, claim in list(node.claims.items()):
            job = world.leader.cluster.jobs.get(claim.launch.job)
            if claim.state != "running" or claim.wish or job is None or not job.stopping:
                node.go(key, OK)
        world.do_report(name)


def _quiet(world: World) -> bool:
    leader = world.leader
    busy = leader.cluster.runs or leader.outbox or leader.written
    kept = any(node.dropped_logs for node in leader.cluster.nodes.values())
    return not (busy or kept or any(n.claims or n.changed for n in world.nodes.values()))


def _nothing_is_left(world: World) -> None:
    leader = world.leader
    promise = "everything ends"
    require(
        not leader.cluster.runs, promise, [(r.name, r.state) for r in leader.cluster.runs.values()]
    )
    require(not leader.cluster.jobs, promise, leader.cluster.jobs)
    for node in world.nodes.values():
        require(not node.claims, "nothing stays on a node", (node.name, list(node.claims)))
        known = {f"{job}.{attempt}.{rank}" for job, attempt, rank in _attempts(world)}
        require(node.logs <= known, "deleted runs leave no output", (node.name, node.logs - known))
    require(not world.disk.rows("dropped_logs"), "deleted runs leave no output", "rows")
    for node in leader.cluster.nodes.values():
        require(not node.claims, "finished jobs release all", node)
    states = world.disk.connection.execute("SELECT state FROM runs UNION SELECT state FROM jobs")
    require({row[0] for row in states} <= FINAL_STATES, promise, "rows")
    require(world.disk.dump() == world.ahead.dump(), "what is decided becomes durable")


def _attempts(world: World) -> list[tuple[int, int, int]]:
    rows = world.disk.connection.execute("SELECT job_id, attempt, rank FROM attempts")
    return [(row[0], row[1], row[2]) for row in rows]
