"""What a restarted server begins with, and the timers that it arms."""

from __future__ import annotations

import pytest

from moorage.core.boot import restore, timers
from moorage.core.effects import Arm, Timer, Wake, Write
from moorage.core.job import Ending, Finishing, Queued, Running, Starting
from moorage.core.reactor import on_apply_fleet
from moorage.protocol.agent import GpuDevice, Held, Outcome, Phase, Usage
from moorage.specs.fleet import Fleet, Host
from moorage.specs.resources import Gpu, Range, Resources
from moorage.specs.retry import Retry
from moorage.specs.schedule import Schedule

GPUS = [GpuDevice(n, "nvidia", "H100", 80) for n in range(4)]


class Tables:
    """The latest values of every row that was written; live ones can be read back."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[object, dict]] = {}

    def take(self, effects) -> None:
        for effect in effects:
            if isinstance(effect, Write):
                _, _, table = effect.query.partition("_")
                params = dict(effect.params)
                key = (params["job_id"], params["attempt"]) if table == "attempt" else params["id"]
                self.rows.setdefault(table, {}).setdefault(key, {}).update(params)

    def live(self, table: str) -> list[dict]:
        ended = ("succeeded", "failed", "cancelled", "done")
        return [row for row in self.rows.get(table, {}).values() if row["state"] not in ended]

    def restored(self):
        runs = [
            {**run, "jobs": sum(job["run_id"] == run["id"] for job in self.rows["job"].values())}
            for run in self.live("run")
        ]
        attempts = [
            {"phases": "[]", "outcome": None, "usage": None, **row} for row in self.live("attempt")
        ]
        highest = {table: max(self.rows.get(table, [0])) for table in ("run", "job", "node")}
        return restore(
            runs=runs,
            jobs=self.live("job"),
            attempts=attempts,
            nodes=list(self.rows["node"].values()),
            ids=highest,
        )


@pytest.fixture
def tables() -> Tables:
    return Tables()


def test_every_state_comes_back(desk, say, tables):
    tables.take(desk.hello(gpus=GPUS, cpus=8))
    for _ in range(5):
        tables.take(desk.submit(resources=Resources(gpu=Gpu()), retry=Retry()))
    tables.take(desk.schedule())
    usage = Usage(1.5, 4096)
    finishing = Held(
        "3.1.0", "finishing", [Phase("run", 5.0, 6.0)], Outcome("exited", exit_code=0), usage
    )
    tables.take(desk.report(say.staging("2.1.0"), finishing, say.running("4.1.0")))
    tables.take(desk.cancel(4, abort=True))

    cluster = tables.restored()
    assert cluster.jobs == desk.cluster.jobs
    assert cluster.runs == desk.cluster.runs
    states = [job.state for job in cluster.jobs.values()]
    assert states == [
        Starting(1, 1),
        Starting(1, 1, say.staging("2.1.0")),
        Finishing(1, 1, finishing),
        Running(1, 1, say.running("4.1.0")),
        Queued(1),
    ]
    assert cluster.nodes[1].claims == desk.cluster.nodes[1].claims
    assert cluster.nodes[1].used_gpus == {0, 1, 2, 3}
    assert not cluster.nodes[1].up
    assert (cluster.next_run, cluster.next_job, cluster.next_node) == (6, 6, 2)
    assert timers(cluster) == [Wake()]


def test_a_retry_goes_on_waiting(desk, say, tables):
    tables.take(desk.hello())
    tables.take(desk.submit(retry=Retry()))
    tables.take(desk.schedule())
    tables.take(desk.report(say.done("1.1.0", 2, message="command 1 of 1 failed")))
    cluster = tables.restored()
    last = Ending("exit-code", "command 1 of 1 failed", 2)
    assert cluster.jobs[1].state == Queued(2, 1001.0, last)
    assert cluster.jobs[1].failed_at == 1000.0
    assert timers(cluster) == [Arm(Timer("retry", 1), 1001.0), Wake()]


def test_a_schedule_goes_on(desk, tables):
    tables.take(desk.hello())
    tables.take(desk.submit(schedule=Schedule(["0 * * * *"])))
    desk.now = 3600.0
    tables.take(desk.ring("cron", 1))
    cluster = tables.restored()
    assert cluster.runs == desk.cluster.runs
    assert cluster.runs[1].jobs == 1
    assert timers(cluster) == [Arm(Timer("cron", 1), 7200.0), Wake()]


def test_limits_do_not_matter_for_what_runs_already(desk, say, tables):
    """A node may have shrunk; what it held is still reserved."""
    tables.take(desk.hello(cpus=8))
    tables.take(desk.submit(resources=Resources(memory=Range(1024))))
    tables.take(desk.schedule())
    tables.take(desk.hello(say.running("1.1.0"), cpus=1, memory=10))
    cluster = tables.restored()
    assert cluster.nodes[1].used_memory == 1024
    assert cluster.nodes[1].free_memory < 0


def test_what_a_node_is_to_delete_comes_back(desk, tables):
    tables.take(desk.hello())
    cluster = restore(
        runs=[],
        jobs=[],
        attempts=[],
        nodes=list(tables.rows["node"].values()),
        ids={"run": 0, "job": 0, "node": 1},
        dropped_logs=[{"node_id": 1, "attempt": "1.1.0"}],
    )
    assert cluster.nodes[1].dropped_logs == {"1.1.0": None}


def test_what_has_a_node_alone_has_it_after_a_restart(desk, tables):
    tables.take(desk.hello(cpus=4))
    tables.take(desk.submit(exclusive=True))
    tables.take(desk.schedule())
    node = tables.restored().nodes[1]
    assert node.claims == desk.cluster.nodes[1].claims
    assert node.used_cpus == 4


def test_blocks_of_a_host_are_counted_after_a_restart(desk):
    hosts = (Host(hostname="a", blocks="auto"),)
    found = [
        *on_apply_fleet(desk.cluster, Fleet(name="lab", hosts=hosts), desk.now),
        *desk.hello(node="lab-0", gpus=GPUS, cpus=8),
    ]
    written = {effect.query: effect.params for effect in found if isinstance(effect, Write)}
    cluster = restore(
        runs=[],
        jobs=[],
        attempts=[],
        nodes=[written["upsert_node"]],
        ids={"run": 0, "job": 0, "node": 1},
        fleets=[written["upsert_fleet"]],
        hosts=[written["upsert_host"]],
        node_places=[written["place_node"]],
    )
    assert cluster.nodes[1].blocks == 4


def test_nobody_knows_when_a_server_that_died_last_heard_of_a_node(desk, tables):
    tables.take(desk.hello(node="away"))
    tables.take(desk.hello(node="here"))
    tables.take(desk.down(1))
    seen = {node.name: node.last_seen for node in tables.restored().nodes.values()}
    assert seen == {"away": desk.now, "here": None}
