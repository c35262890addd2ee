"""A cluster on a desk: short ways to bring about events, and effects in short words."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from moorage.core.cluster import Cluster
from moorage.core.effects import Arm, Effect, Emit, Send, Timer, Write
from moorage.core.job import Job
from moorage.core.reactor import (
    on_cancel,
    on_hello,
    on_node_down,
    on_report,
    on_submit,
    on_timer,
    schedule,
)
from moorage.ids import JobId, NodeId, RunId
from moorage.protocol.agent import (
    Forget,
    GpuDevice,
    Held,
    Hello,
    Isolation,
    NodeResources,
    Outcome,
    Phase,
    Report,
    Retract,
    Start,
    Stop,
)
from moorage.protocol.api import RunRequest
from moorage.specs.task import Task

GB = 1024**3


@dataclass
class Desk:
    cluster: Cluster = field(default_factory=Cluster)
    now: float = 1000.0
    seq: int = 0

    def submit(self, *tasks: Task, **fields: Any) -> list[Effect]:
        requests = [RunRequest(spec) for spec in tasks or (Task(**fields),)]
        names = (f"run-{n}" for n in count(1))
        return on_submit(
            self.cluster, requests, "ann", self.now, request_id="r", names=names
        ).effects

    def hello(
        self,
        *held: Held,
        node: str = "box",
        cpus: int = 4,
        memory: int = 16 * GB,
        gpus: list[GpuDevice] | None = None,
        boot: str = "boot-1",
    ) -> list[Effect]:
        has = NodeResources(cpus, "x86", memory, 100 * GB, gpus or [])
        message = Hello(1, "0.1", node, boot, has, Isolation(user="ann"), ["3.11"], list(held))
        return on_hello(self.cluster, message, self.now)

    def schedule(self) -> list[Effect]:
        return schedule(self.cluster, self.now)

    def started(self, **fields: Any) -> Job:
        """One job that a node holds, and runs."""
        if not self.cluster.nodes:
            self.hello()
        self.submit(**fields)
        job = list(self.cluster.jobs.values())[-1]
        self.schedule()
        self.report(running(job.key))
        return job

    def report(self, *held: Held, node: int = 1) -> list[Effect]:
        self.seq += 1
        return on_report(self.cluster, NodeId(node), Report(self.seq, list(held)), self.now)

    def cancel(self, run: int = 1, *, abort: bool = False) -> list[Effect]:
        return on_cancel(self.cluster, RunId(run), abort, self.now)

    def down(self, node: int = 1) -> list[Effect]:
        return on_node_down(self.cluster, NodeId(node), self.now)

    def ring(self, kind: str, number: int) -> list[Effect]:
        return on_timer(self.cluster, Timer(kind, number), self.now)

    def job(self, number: int = 1) -> Job:
        return self.cluster.jobs[JobId(number)]


def in_line(key: str) -> Held:
    return Held(key, "waiting")


def retracted(key: str) -> Held:
    return Held(key, "retracted")


def staging(key: str) -> Held:
    return Held(key, "staging", [Phase("claim", 1.0)])


def running(key: str, began: float = 5.0) -> Held:
    return Held(key, "running", [Phase("claim", 1.0, 2.0), Phase("run", began)])


def finishing(key: str, code: int = 0, began: float = 5.0) -> Held:
    phases = [Phase("claim", 1.0, 2.0), Phase("run", began, 9.0), Phase("flush", 9.0)]
    return Held(key, "finishing", phases, Outcome("exited", exit_code=code))


def done(key: str, code: int = 0, *, kind: str = "exited", **told: Any) -> Held:
    """The end of an attempt whose process ran."""
    phases = [Phase("claim", 1.0, 2.0), Phase("run", 5.0, 9.0), Phase("flush", 9.0, 9.5)]
    if kind == "exited":
        told["exit_code"] = code
    return Held(key, "done", phases, Outcome(kind, **told))


def unrun(key: str, kind: str = "phase-failed", **told: Any) -> Held:
    """The end of an attempt that never had a process."""
    return Held(key, "done", [Phase("claim", 1.0, 2.0)], Outcome(kind, **told))


def unbegun(key: str, kind: str = "stopped") -> Held:
    """The end of an attempt that was not even claimed."""
    return Held(key, "done", outcome=Outcome(kind))


def brief(effects: list[Effect]) -> list[str]:
    """Each effect as a line, in order."""
    return [_line(effect) for effect in effects]


def _line(effect: Effect) -> str:
    match effect:
        case Write(query, params):
            keys = [str(params[k]) for k in ("id", "job_id", "state", "digest") if k in params]
            return " ".join([query, *keys])
        case Emit(kind):
            return f"! {kind}"
        case Send(node, Start(launch, wait)):
            return f"-> {node} {'wait' if wait else 'start'} {launch.job}.{launch.attempt}"
        case Send(node, Retract(keys)):
            return f"-> {node} retract {' '.join(keys)}"
        case Send(node, Stop(key, grace, abort)):
            return f"-> {node} stop {key} {grace}{' abort' if abort else ''}"
        case Send(node, Forget(keys)):
            return f"-> {node} forget {' '.join(keys)}"
        case Send(node, message):
            return f"-> {node} {type(message).__name__.lower()}"
        case Arm(timer, at):
            return f"arm {timer.kind} {timer.id} {at:g}"
        case _:
            return "wake"


@pytest.fixture
def desk() -> Desk:
    return Desk()


@dataclass
class Words:
    """What tests need of this file, which they cannot import."""

    brief = staticmethod(brief)
    in_line = staticmethod(in_line)
    retracted = staticmethod(retracted)
    staging = staticmethod(staging)
    running = staticmethod(running)
    finishing = staticmethod(finishing)
    done = staticmethod(done)
    unrun = staticmethod(unrun)
    unbegun = staticmethod(unbegun)


@pytest.fixture
def say() -> Words:
    return Words()
