"""The core against a world that fails: agents and the server crash, nodes reboot, connections drop
with what was in flight, reports come late and twice. After every step the promises must hold.

The server is the reactor with the real SQL over a database in memory. Decisions wait in an outbox,
in order, until `commit`; a crash of the server loses what waits there, as it would in the engine.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from moorage.core.boot import restore, timers
from moorage.core.cluster import Cluster
from moorage.core.effects import Arm, Effect, Emit, Send, Timer, Write
from moorage.core.job import Live, Queued
from moorage.core.reactor import (
    on_cancel,
    on_delete,
    on_hello,
    on_node_down,
    on_report,
    on_submit,
    on_timer,
    schedule,
)
from moorage.errors import InvalidInput
from moorage.ids import AttemptKey, NodeId
from moorage.protocol.agent import (
    Ack,
    Forget,
    GpuDevice,
    Held,
    Hello,
    Isolation,
    NodeResources,
    Outcome,
    Phase,
    Report,
    Start,
    Stop,
)
from moorage.protocol.api import RunRequest
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.retry import Retry
from moorage.specs.schedule import Schedule
from moorage.specs.task import Task
from moorage.store import sql

QUERIES = sql.queries("sqlite")
FINAL = ("succeeded", "failed", "cancelled")
GPUS = [GpuDevice(n, "nvidia", "H100", 80) for n in range(2)]
NODES = {
    "box": NodeResources(2, "x86", 16, 100, GPUS),
    "rack": NodeResources(4, "x86", 32, 100),
}
TASKS = st.builds(
    Task,
    resources=st.builds(
        Resources,
        cpu=st.builds(Cpu, st.sampled_from([Range(0.5), Range(1, 2), Range(2), Range(4)])),
        memory=st.sampled_from([None, Range(8), Range(20)]),
        gpu=st.sampled_from([None, None, Gpu()]),
    ),
    priority=st.sampled_from([0, 0, 50]),
    retry=st.sampled_from([None, Retry(), Retry(("interruption",), 20.0)]),
    schedule=st.sampled_from([None, None, None, Schedule(["*/2 * * * *"])]),
)
ENDS = st.sampled_from(
    [
        Outcome("exited", exit_code=0),
        Outcome("exited", exit_code=1, message="command 1 of 1 failed with exit code 1"),
        Outcome("out-of-memory", signal=9),
        Outcome("timeout"),
        Outcome("lost", message="the keeper died"),
    ]
)


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(sql.for_sqlite(sql.schema()))
    return connection


def apply(connection: sqlite3.Connection, effects: list[Effect], now: float) -> None:
    for effect in effects:
        if isinstance(effect, Write):
            query, params = QUERIES[effect.query], effect.params
            assert query.parameters == set(params), effect.query
            connection.execute(query.text, params)
        elif isinstance(effect, Emit):
            row = (now, effect.kind, effect.run, effect.job, effect.node)
            params = dict(zip(("at", "kind", "run_id", "job_id", "node_id"), row, strict=True))
            params["data"] = json.dumps(effect.data or {})
            connection.execute(QUERIES["insert_event"].text, params)


def rebuilt(connection: sqlite3.Connection) -> Cluster:
    def rows(query: str) -> list[sqlite3.Row]:
        return connection.execute(QUERIES[query].text).fetchall()

    return restore(
        runs=rows("live_runs"),
        jobs=rows("live_jobs"),
        attempts=rows("live_attempts"),
        nodes=rows("nodes"),
        ids=rows("max_ids")[0],
    )


def essence(cluster: Cluster) -> dict[str, object]:
    """What must be equal after a restart: all but whose agents are connected and which delays
    before a retry are over, since timers and Hello tell those again."""
    return {
        "next": (cluster.next_run, cluster.next_job, cluster.next_node),
        "runs": cluster.runs,
        "jobs": cluster.jobs,
        "nodes": {n: replace(node, up=False) for n, node in cluster.nodes.items()},
        "names": (cluster.names, cluster.node_names),
        "queue": {job for job in cluster.jobs if job in cluster.queue},
        "counts": cluster.counts,
    }


@dataclass
class Claim:
    """One attempt directory on a node's disk, and the process that it may have."""

    launch: Start | None
    state: str = "staging"
    ran: bool = False
    outcome: Outcome | None = None

    @property
    def alive(self) -> bool:
        return self.state == "running"

    def held(self, key: str) -> Held:
        steps = ["claim", *(["run"] if self.ran else [])]
        steps += {"finishing": ["flush"], "done": ["flush", "clean"]}.get(self.state, [])
        phases = [Phase(step, float(n), n + 0.5) for n, step in enumerate(steps)]
        return Held(key, self.state, phases, self.outcome)

    def end(self, state: str, outcome: Outcome) -> None:
        self.state, self.outcome = state, outcome


@dataclass
class Machine:
    """A node: its disk (`claims`), its agent, its connection. `to_agent` is what is in flight."""

    name: str
    boot: int = 1
    claims: dict[str, Claim] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    started: Counter[str] = field(default_factory=Counter)
    connected: bool = False
    session: int = 0
    open: bool = False
    """What was decided before the present Hello is answered by it, and no longer sent."""
    to_agent: list[object] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    dirty: dict[str, int] = field(default_factory=dict)
    """Claims to report, by the last report that carried them (0: none yet)."""
    seq: int = 0

    def hello(self) -> Hello:
        self.connected, self.open, self.to_agent, self.dirty = True, False, [], {}
        self.session += 1
        held = [claim.held(key) for key, claim in self.claims.items()]
        has = NODES[self.name]
        boot = f"{self.name}-{self.boot}"
        return Hello(1, "0.1", self.name, boot, has, Isolation(), ["3.11"], held)

    def report(self) -> Report:
        self.seq += 1
        self.dirty = dict.fromkeys(self.dirty, self.seq)
        held = [self.claims[key].held(key) for key in self.dirty if key in self.claims]
        self.reports.append(Report(self.seq, held))
        return self.reports[-1]

    def receive(self) -> None:
        """Handle one message; an agent knows every key it ever claimed until it forgets it."""
        message = self.to_agent.pop(0)
        match message:
            case Start(launch):
                key = str(AttemptKey(launch.job, launch.attempt, launch.rank))
                assert key not in self.forgotten, f"{key} was started after its end"
                self.claims.setdefault(key, Claim(message))
                self.dirty[key] = 0
            case Stop(key, _, abort):
                outcome = Outcome("aborted" if abort else "stopped", signal=15)
                claim = self.claims.setdefault(key, Claim(None))
                if claim.state in ("staging", "running"):
                    claim.end("finishing" if claim.launch else "done", outcome)
                self.dirty[key] = 0
            case Forget(keys):
                for key in keys:
                    claim = self.claims.pop(key, None)
                    assert claim is None or claim.state == "done"
                    self.forgotten.add(key)
                    self.dirty.pop(key, None)
            case Ack(seq):
                self.dirty = {k: n for k, n in self.dirty.items() if n == 0 or n > seq}

    def step(self, key: str, outcome: Outcome) -> None:
        """An attempt gets on by one state."""
        claim = self.claims[key]
        match claim.state:
            case "staging":
                claim.state, claim.ran = "running", True
                self.started[key] += 1
            case "running":
                claim.end("finishing", outcome)
            case "finishing":
                claim.state = "done"
        self.dirty[key] = 0

    def restart(self) -> None:
        """The agent crashed and is back; the keeper kept what runs."""
        self.connected = False
        for claim in self.claims.values():
            if claim.state == "staging":
                claim.end("done", Outcome("lost", message="agent restarted"))

    def reboot(self, keeps_claims: bool) -> None:
        self.boot += 1
        self.connected = False
        if not keeps_claims:
            self.claims.clear()
        for claim in self.claims.values():
            if claim.state != "done":
                claim.end("done", Outcome("lost", message="node rebooted"))


class World(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.cluster = Cluster()
        self.disk, self.latest = database(), database()
        self.outbox: list[tuple[list[Effect], tuple[Machine, int] | None]] = []
        self.machines = {name: Machine(name) for name in NODES}
        self.alarms: dict[Timer, float] = {}
        self.acknowledged: set[int] = set()
        self.deleted: set[int] = set()
        self.names = (f"run-{n}" for n in count(1))
        for name in NODES:  # so that what could never run is refused
            self.connect(name)
        self.commit(len(NODES))

    def teardown(self) -> None:
        self.heal()
        self.disk.close()
        self.latest.close()

    def decide(self, effects: list[Effect], greets: Machine | None = None) -> None:
        """What the engine does: timers at once, the rest in order through the outbox."""
        for effect in effects:
            if isinstance(effect, Arm):
                self.alarms[effect.timer] = effect.at
        self.outbox.append((effects, greets and (greets, greets.session)))
        apply(self.latest, effects, self.now)

    def machine(self, node: NodeId) -> Machine:
        return self.machines[self.cluster.nodes[node].name]

    # the server

    @rule(tasks=st.lists(TASKS, min_size=1, max_size=3))
    def submit(self, tasks: list[Task]) -> None:
        requests = [RunRequest(task) for task in tasks]
        try:
            submitted = on_submit(
                self.cluster, requests, "ann", self.now, request_id="r", names=self.names
            )
        except InvalidInput:
            return
        self.decide(submitted.effects)

    @rule()
    def place(self) -> None:
        self.decide(schedule(self.cluster, self.now))

    @rule(batches=st.integers(1, 20))
    def commit(self, batches: int) -> None:
        for _ in range(min(batches, len(self.outbox))):
            effects, greeted = self.outbox.pop(0)
            apply(self.disk, effects, self.now)
            if greeted is not None and greeted[0].session == greeted[1]:
                greeted[0].open = True
            for effect in effects:
                if isinstance(effect, Send):
                    machine = self.machine(effect.node)
                    if machine.connected and machine.open:
                        machine.to_agent.append(effect.message)
                elif isinstance(effect, Write) and effect.query == "insert_run":
                    self.acknowledged.add(effect.params["id"])
                elif isinstance(effect, Write) and effect.query == "delete_run":
                    self.deleted.add(effect.params["id"])

    @precondition(lambda self: self.cluster.runs)
    @rule(data=st.data(), abort=st.booleans())
    def cancel(self, data: st.DataObject, abort: bool) -> None:
        run = data.draw(st.sampled_from(sorted(self.cluster.runs)))
        self.decide(on_cancel(self.cluster, run, abort, self.now))

    @precondition(lambda self: self.alarms)
    @rule()
    def ring(self) -> None:
        timer = min(self.alarms, key=lambda timer: (self.alarms[timer], timer.id))
        self.now = max(self.now, self.alarms.pop(timer))
        self.decide(on_timer(self.cluster, timer, self.now))

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        ended = sorted(self.acknowledged - self.deleted - set(self.cluster.runs))
        if ended and not self.outbox:
            self.decide(on_delete(self.cluster, data.draw(st.sampled_from(ended)), {}))

    @rule()
    def server_crashes(self) -> None:
        self.outbox.clear()
        self.alarms.clear()
        self.latest.close()
        self.latest = database()
        self.disk.backup(self.latest)
        self.cluster = rebuilt(self.disk)
        for machine in self.machines.values():
            machine.connected = False
        self.decide(timers(self.cluster))

    # the nodes and the network

    @rule(name=st.sampled_from(sorted(NODES)))
    def connect(self, name: str) -> None:
        """Also while the server still believes in the connection before."""
        machine = self.machines[name]
        self.decide(on_hello(self.cluster, machine.hello(), self.now), greets=machine)

    @rule(name=st.sampled_from(sorted(NODES)), noticed=st.booleans())
    def drop(self, name: str, noticed: bool) -> None:
        self.machines[name].connected = False
        node = self.cluster.node_names.get(name)
        if noticed and node is not None:
            self.decide(on_node_down(self.cluster, node, self.now))

    @rule(name=st.sampled_from(sorted(NODES)), messages=st.integers(1, 10))
    def deliver(self, name: str, messages: int) -> None:
        machine = self.machines[name]
        for _ in range(min(messages, len(machine.to_agent) if machine.connected else 0)):
            machine.receive()

    @rule(name=st.sampled_from(sorted(NODES)), arrives=st.booleans())
    def report(self, name: str, arrives: bool) -> None:
        machine = self.machines[name]
        if machine.connected and machine.dirty:
            report = machine.report()
            if arrives:
                self.take(name, report)

    @rule(name=st.sampled_from(sorted(NODES)), data=st.data())
    def old_report(self, name: str, data: st.DataObject) -> None:
        """Any report ever sent comes late, again, or out of order."""
        machine = self.machines[name]
        if machine.connected and machine.reports:
            late = data.draw(st.sampled_from(machine.reports))
            self.take(name, Report(0, late.held))

    def take(self, name: str, report: Report) -> None:
        node = self.cluster.node_names[name]
        self.decide(on_report(self.cluster, node, report, self.now))

    @rule(name=st.sampled_from(sorted(NODES)), data=st.data(), outcome=ENDS)
    def attempt_gets_on(self, name: str, data: st.DataObject, outcome: Outcome) -> None:
        machine = self.machines[name]
        moving = [key for key, claim in machine.claims.items() if claim.state != "done"]
        if moving:
            machine.step(data.draw(st.sampled_from(moving)), outcome)

    @rule(name=st.sampled_from(sorted(NODES)))
    def agent_restarts(self, name: str) -> None:
        self.machines[name].restart()

    @rule(name=st.sampled_from(sorted(NODES)), keeps_claims=st.booleans())
    def node_reboots(self, name: str, keeps_claims: bool) -> None:
        self.machines[name].reboot(keeps_claims)

    # the promises

    @invariant()
    def promises(self) -> None:
        self.acknowledged_runs_never_vanish()
        self.no_attempt_runs_twice_and_no_two_of_a_job_run_at_once()
        self.a_next_attempt_follows_the_end_of_the_last()
        self.nothing_is_given_twice()
        self.processes_never_need_more_than_the_node_has()
        self.indexes_agree_with_what_they_index()
        self.the_rows_rebuild_the_same_cluster()

    def acknowledged_runs_never_vanish(self) -> None:
        there = {row[0] for row in self.disk.execute("SELECT id FROM runs")}
        assert self.acknowledged - self.deleted <= there

    def no_attempt_runs_twice_and_no_two_of_a_job_run_at_once(self) -> None:
        started: Counter[str] = Counter()
        alive: Counter[int] = Counter()
        for machine in self.machines.values():
            started += machine.started
            alive += Counter(
                AttemptKey.parse(key).job for key, claim in machine.claims.items() if claim.alive
            )
        assert all(times == 1 for times in started.values()), started
        assert all(times == 1 for times in alive.values()), alive

    def a_next_attempt_follows_the_end_of_the_last(self) -> None:
        rows = self.latest.execute(
            "SELECT a.job_id, a.attempt FROM attempts a JOIN attempts b"
            " ON b.job_id = a.job_id AND b.attempt > a.attempt WHERE a.state <> 'done'"
        )
        assert rows.fetchall() == []

    def nothing_is_given_twice(self) -> None:
        for node in self.cluster.nodes.values():
            claims = node.claims.values()
            assert node.used_millicpus == sum(c.millicpus for c in claims)
            assert node.used_memory == sum(c.memory for c in claims)
            assert min(node.free_millicpus, node.free_memory, node.free_disk) >= 0
            gpus = [gpu for claim in claims for gpu in claim.gpus]
            assert sorted(gpus) == sorted(node.used_gpus)
            live = {job.id for job in self.cluster.jobs.values() if isinstance(job.state, Live)}
            here = {j for j in live if self.cluster.jobs[j].state.node == node.id}
            assert set(node.claims) == here

    def processes_never_need_more_than_the_node_has(self) -> None:
        for machine in self.machines.values():
            alive = [claim.launch.launch for claim in machine.claims.values() if claim.alive]
            cpus = sum(float(launch.env["MOORAGE_CPUS"]) for launch in alive)
            gpus = [gpu for launch in alive for gpu in launch.limits.gpus]
            assert cpus <= NODES[machine.name].cpus
            assert len(gpus) == len(set(gpus))

    def indexes_agree_with_what_they_index(self) -> None:
        cluster = self.cluster
        assert cluster.counts == Counter(run.state for run in cluster.runs.values())
        assert not {"succeeded", "failed", "cancelled"} & set(cluster.counts)
        assert {run.name: run.id for run in cluster.runs.values()} == cluster.names
        queued = {job.id for job in cluster.jobs.values() if isinstance(job.state, Queued)}
        assert {job for job in cluster.jobs if job in cluster.queue} == queued
        assert len(cluster.queue) == len(queued)
        for run in cluster.runs.values():
            live = {job.id for job in cluster.jobs.values() if job.run == run.id}
            assert run.live == live

    def the_rows_rebuild_the_same_cluster(self) -> None:
        assert essence(rebuilt(self.latest)) == essence(self.cluster)

    def heal(self) -> None:
        """Everything works again: then every run ends, and no node holds anything of it."""
        for run in list(self.cluster.runs.values()):
            if run.task.schedule is not None:
                self.decide(on_cancel(self.cluster, run.id, False, self.now))
        for name in NODES:
            self.connect(name)
        for _ in range(200):
            while self.alarms:
                self.ring()
            self.place()
            self.commit(len(self.outbox))
            for name, machine in self.machines.items():
                self.deliver(name, len(machine.to_agent))
                for key, claim in list(machine.claims.items()):
                    if claim.state != "done":
                        machine.step(key, Outcome("exited", exit_code=0))
                self.report(name, True)
            self.the_rows_rebuild_the_same_cluster()
            self.no_attempt_runs_twice_and_no_two_of_a_job_run_at_once()
            if not (
                self.cluster.runs or self.outbox or any(m.claims for m in self.machines.values())
            ):
                break
        assert not self.cluster.runs
        assert not any(machine.claims for machine in self.machines.values())
        states = self.disk.execute("SELECT state FROM runs UNION SELECT state FROM jobs")
        assert {row[0] for row in states} <= set(FINAL)


TestWorld = World.TestCase
TestWorld.settings = settings(
    max_examples=80,
    stateful_step_count=60,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
