"""A server and its nodes, in a world that fails.

The server is the reactor with the real SQL over a database in memory. Decisions wait in an outbox,
in order, until `commit`; a crash of the server loses what waits there, as it would in the engine.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count

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
from moorage.protocol.agent import Outcome, Report
from moorage.protocol.api import RunRequest
from moorage.specs.task import Task
from moorage.store import sql
from sim.machine import NODES, Machine

QUERIES = sql.queries("sqlite")
STATES = ("assigned", "staging", "running", "finishing", "done")
FINAL = {"succeeded", "failed", "cancelled"}


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


class World:
    """What can happen, one method each; numbers choose among what is there. `promises` must hold
    after each, and `heal` at the end."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.cluster = Cluster()
        self.disk, self.latest = database(), database()
        self.outbox: list[tuple[list[Effect], tuple[Machine, int] | None]] = []
        self.machines = {name: Machine(name) for name in NODES}
        self.alarms: dict[Timer, float] = {}
        self.acknowledged: set[int] = set()
        self.deleted: set[int] = set()
        self.reached: dict[tuple[int, int], tuple[int, int]] = {}
        self.names = (f"run-{n}" for n in count(1))
        self.requests = count(1)
        for name in NODES:  # so that what could never run is refused
            self.connect(name)
        self.commit(len(NODES))

    def close(self) -> None:
        self.disk.close()
        self.latest.close()

    def decide(self, effects: list[Effect], greets: Machine | None = None) -> None:
        """What the engine does: timers at once, the rest in order through the outbox."""
        for effect in effects:
            if isinstance(effect, Arm):
                self.alarms[effect.timer] = effect.at
        self.outbox.append((effects, greets and (greets, greets.session)))
        apply(self.latest, effects, self.now)

    # the server

    def submit(self, tasks: Sequence[Task]) -> None:
        requests = [RunRequest(task) for task in tasks]
        name = f"r{next(self.requests)}"
        try:
            submitted = on_submit(
                self.cluster, requests, "ann", self.now, request_id=name, names=self.names
            )
        except InvalidInput:
            return
        self.decide(submitted.effects)

    def place(self) -> None:
        self.decide(schedule(self.cluster, self.now))

    def commit(self, batches: int) -> None:
        for _ in range(min(batches, len(self.outbox))):
            effects, greeted = self.outbox.pop(0)
            apply(self.disk, effects, self.now)
            if greeted is not None and greeted[0].session == greeted[1]:
                greeted[0].open = True
            for effect in effects:
                self.carry_out(effect)

    def carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            machine = self.machines[self.cluster.nodes[effect.node].name]
            if machine.connected and machine.open:
                machine.to_agent.append(effect.message)
        elif isinstance(effect, Write) and effect.query == "insert_run":
            self.acknowledged.add(effect.params["id"])
        elif isinstance(effect, Write) and effect.query == "delete_run":
            self.deleted.add(effect.params["id"])

    def cancel(self, number: int, abort: bool) -> None:
        if runs := sorted(self.cluster.runs):
            run = runs[number % len(runs)]
            self.decide(on_cancel(self.cluster, run, abort, self.now))

    def ring(self) -> None:
        """The next timer; time passes until then."""
        if self.alarms:
            timer = min(self.alarms, key=lambda timer: (self.alarms[timer], timer.id))
            self.now = max(self.now, self.alarms.pop(timer))
            self.decide(on_timer(self.cluster, timer, self.now))

    def delete(self, number: int) -> None:
        ended = sorted(self.acknowledged - self.deleted - set(self.cluster.runs))
        if ended and not self.outbox:
            run = ended[number % len(ended)]
            self.decide(on_delete(self.cluster, run, {}))

    def server_crashes(self) -> None:
        self.outbox.clear()
        self.alarms.clear()
        self.reached.clear()
        with closing(self.latest):
            self.latest = database()
        self.disk.backup(self.latest)
        self.cluster = rebuilt(self.disk)
        for machine in self.machines.values():
            machine.connected = False
        self.decide(timers(self.cluster))

    # the nodes and the network

    def connect(self, name: str) -> None:
        """Also while the server still believes in the connection before."""
        machine = self.machines[name]
        self.decide(on_hello(self.cluster, machine.hello(), self.now), greets=machine)

    def drop(self, name: str, noticed: bool) -> None:
        self.machines[name].connected = False
        node = self.cluster.node_names.get(name)
        if noticed and node is not None:
            self.decide(on_node_down(self.cluster, node, self.now))

    def deliver(self, name: str, messages: int) -> None:
        machine = self.machines[name]
        for _ in range(min(messages, len(machine.to_agent) if machine.connected else 0)):
            machine.receive()

    def report(self, name: str, arrives: bool) -> None:
        machine = self.machines[name]
        if machine.connected and machine.dirty:
            report = machine.report()
            if arrives:
                self.take(name, report)

    def old_report(self, name: str, number: int) -> None:
        """Any report ever sent comes late, again, or out of order."""
        machine = self.machines[name]
        if machine.connected and machine.reports:
            late = machine.reports[-1 - number % len(machine.reports)]
            self.take(name, Report(0, late.held))

    def take(self, name: str, report: Report) -> None:
        node: NodeId = self.cluster.node_names[name]
        self.decide(on_report(self.cluster, node, report, self.now))

    def attempts_get_on(self, name: str, first: int, outcome: Outcome) -> None:
        """All of a node but the first few."""
        machine = self.machines[name]
        for key in list(machine.claims)[first:]:
            machine.step(key, outcome)

    def agent_restarts(self, name: str) -> None:
        self.machines[name].restart()

    def node_reboots(self, name: str, keeps_claims: bool) -> None:
        self.machines[name].reboot(keeps_claims)

    # the promises

    def promises(self) -> None:
        self.acknowledged_runs_never_vanish()
        self.no_attempt_runs_twice_and_no_two_of_a_job_run_at_once()
        self.a_next_attempt_follows_the_end_of_the_last()
        self.attempts_never_go_back()
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

    def attempts_never_go_back(self) -> None:
        for row in self.latest.execute("SELECT job_id, attempt, state, phases FROM attempts"):
            key = (row["job_id"], row["attempt"])
            reached = (STATES.index(row["state"]), row["phases"].count("name"))
            assert reached >= self.reached.get(key, reached), key
            self.reached[key] = reached

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
        assert not FINAL & set(cluster.counts)
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
        """Everything works again: then every run ends, those that were stopped only by their Stop,
        and no node holds anything of it."""
        for run in list(self.cluster.runs.values()):
            if run.task.schedule is not None:
                self.decide(on_cancel(self.cluster, run.id, False, self.now))
        for name in NODES:
            self.connect(name)
        for _ in range(100):
            while self.alarms:
                self.ring()
            self.place()
            self.commit(len(self.outbox))
            for name, machine in self.machines.items():
                self.deliver(name, len(machine.to_agent))
                for key, claim in list(machine.claims.items()):
                    job = self.cluster.jobs.get(AttemptKey.parse(key).job)
                    if job is None or not job.stopping or claim.state == "finishing":
                        machine.step(key, Outcome("exited", exit_code=0))
                self.report(name, True)
            if not (
                self.cluster.runs or self.outbox or any(m.claims for m in self.machines.values())
            ):
                break
        self.promises()
        assert not self.cluster.runs
        assert not any(machine.claims for machine in self.machines.values())
        states = self.disk.execute("SELECT state FROM runs UNION SELECT state FROM jobs")
        assert {row[0] for row in states} <= FINAL
