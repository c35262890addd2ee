"""What a plan says of several nodes: of those that answer, are silent, or are away."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from moorage import Client
from moorage.protocol.plans import RunPlan
from moorage.specs.mounts import HostPath
from moorage.specs.task import Task
from system.nodes import PATIENCE, nodes


def planned(client: Client, task: Task, silent: list[str]) -> RunPlan:
    """What is said when these alone did not answer; a busy machine may be too slow for others."""
    deadline = time.monotonic() + PATIENCE
    while True:
        [plan] = client.plan(task)
        if plan.not_asked == silent or time.monotonic() > deadline:
            return plan


def test_who_says_nothing_and_who_lacks_what_is_named(tmp_path: Path) -> None:
    task = Task(commands=["true"])
    missing = Task(commands=["true"], mounts=[HostPath("/none/x", "/x", read_only=True)])
    with nodes(tmp_path, "a", "b") as lab, lab.client as client:
        plan = planned(client, missing, [])
        assert plan.problems == [
            "mounts[0]: on a, b: /none/x does not exist on this node; create it, or drop :ro"
        ]
        assert plan.not_asked == []
        os.kill(lab.agents["b"].pid, signal.SIGSTOP)
        try:
            plan = planned(client, task, ["b, which did not answer within 1 s"])
        finally:
            os.kill(lab.agents["b"].pid, signal.SIGCONT)
        assert plan.not_asked == ["b, which did not answer within 1 s"]
        lab.kill("b")
        lab.follow(lambda: {n.name: n.state for n in client.nodes()}["b"] == "down")
        plan = planned(client, task, ["b, which is down"])
        assert (plan.not_asked, plan.problems) == (["b, which is down"], [])
