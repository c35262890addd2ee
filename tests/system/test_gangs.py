"""Jobs on several nodes: real agents of this machine as the nodes of a real server."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from moorage import Client
from moorage.cli.ranklogs import in_turn
from moorage.errors import NotFound
from moorage.specs.mounts import HostPath
from system.cli_harness import Command
from system.nodes import Nodes, latest, nodes

NAMES = ("a", "b", "c")
SOON = 30.0
"""Seconds: far less than the 300 after which what does not follow a stop is killed."""
SMALL = {"cpu": {"count": {"min": 0.1, "max": 0.1}}}
PRINT = [
    "echo $MOORAGE_RANK of $MOORAGE_NODES, master $DSTACK_MASTER_NODE_IP",
    "echo $DSTACK_NODES_IPS",
    "cat $DSTACK_MPI_HOSTFILE",
]

WAIT = "until [ -e /signals/go ]; do sleep 0.01; done"


def shared(directory: Path) -> list[Any]:
    """Where jobs see what a test does."""
    return [msgspec.to_builtins(HostPath(target="/signals", source=str(directory)))]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with nodes(tmp_path_factory.mktemp("gang"), *NAMES) as cluster:
        yield cluster


def test_every_rank_knows_the_others(cluster: Nodes) -> None:
    run = cluster.server.submit("know", nodes=3, commands=PRINT, compat=["dstack"])
    view = cluster.ended(run)
    assert view.summary.state == "succeeded", view.summary
    assert [(one.rank, one.node, one.state) for one in latest(view)] == [
        (0, "a", "done"),
        (1, "b", "done"),
        (2, "c", "done"),
    ]
    for rank in range(3):
        assert cluster.output(run, rank).splitlines() == [
            f"{rank} of 3, master 127.0.0.1",
            "127.0.0.1 127.0.0.2 127.0.0.3",
            "127.0.0.1 slots=1",
            "127.0.0.2 slots=1",
            "127.0.0.3 slots=1",
        ]


def test_one_that_fails_ends_the_others_at_once(cluster: Nodes, tmp_path: Path) -> None:
    go = tmp_path / "go"
    fail = f"[ $MOORAGE_RANK = 1 ] && {WAIT} && exit 3"
    commands = [f"{fail}; exec sleep 1000"]
    run = cluster.server.submit("fail", nodes=3, commands=commands, mounts=shared(tmp_path))
    cluster.reaches(run, "running")
    went = time.time()
    go.touch()
    view = cluster.ended(run)
    told = view.summary
    assert (told.state, told.exit_code, told.reason) == ("failed", 3, "exit-code")
    assert told.message.startswith("rank 1 on node b: "), told.message
    ends = [phase.ended for one in latest(view) for phase in one.phases if phase.name == "run"]
    assert len(ends) == 3
    assert max(end or 0.0 for end in ends) - went < SOON
    kinds = [one.outcome.kind for one in latest(view) if one.outcome]
    assert kinds == ["stopped", "exited", "stopped"]


def test_a_retry_restarts_all_of_them(cluster: Nodes) -> None:
    command = "[ $MOORAGE_RANK$MOORAGE_ATTEMPT = 21 ] && exit 5; [ $MOORAGE_ATTEMPT = 2 ]"
    command += " && exit 0; exec sleep 1000"
    retry = {"on_events": ["error"], "duration": 60.0}
    run = cluster.server.submit("retry", nodes=3, commands=[command], retry=retry)
    view = cluster.ended(run)
    assert view.summary.state == "succeeded", view.summary
    attempts = view.jobs[0].attempts
    assert [(one.attempt, one.rank) for one in attempts] == [
        (a, r) for a in (1, 2) for r in range(3)
    ]
    over = max(one.ended_at or 0.0 for one in attempts if one.attempt == 1)
    assert over <= min(one.assigned_at for one in attempts if one.attempt == 2)


def test_the_good_end_of_the_first_is_enough_where_a_user_says_so(cluster: Nodes) -> None:
    command = "[ $MOORAGE_RANK = 0 ] || exec sleep 1000"
    run = cluster.server.submit(
        "master",
        nodes=3,
        commands=[command],
        stop_criteria="master-done",
        startup_order="workers-first",
    )
    view = cluster.ended(run)
    assert view.summary.state == "succeeded", view.summary
    began = [next(p.began for p in one.phases if p.name == "run") for one in latest(view)]
    assert began[0] >= max(began[1:])


def test_the_output_of_all_is_shown_as_one(cluster: Nodes) -> None:
    run = cluster.server.submit("merged", nodes=2, commands=["echo a; printf b"])
    cluster.ended(run)
    with cluster.client as client:

        def read(client: Client, rank: int) -> Iterable[bytes]:
            return client.logs(run, rank=rank)

        assert b"".join(in_turn(client, 2, read)).decode().splitlines() == [
            *("[rank 0] a", "[rank 0] b"),
            *("[rank 1] a", "[rank 1] b"),
        ]
        with pytest.raises(NotFound, match="no rank 2: they are 0 to 1"):
            list(read(client, 2))


def test_interrupted_and_continued_no_line_of_any_rank_is_lost(
    cluster: Nodes, tmp_path: Path
) -> None:
    moorage = Command(cluster.server.home)
    task = tmp_path / "task.yml"
    task.write_text(
        "type: task\nname: screen\nnodes: 2\n"
        f"volumes: ['{tmp_path}:/signals']\ncommands: [echo begun, '{WAIT}', echo ended]\n"
    )
    with moorage.on_terminal("apply", "-y", "-f", str(task)) as screen:
        screen.expect("[rank 0] begun")
        screen.expect("[rank 1] begun")
        screen.interrupt()
        screen.expect("[C]ontinue?")
        with moorage.on_terminal("attach", "screen") as other:
            other.expect("[rank 0] begun")
            other.expect("[rank 1] begun")
            other.interrupt()
            assert other.end() == 0
            assert "detached; screen goes on" in other.text
        screen.type("\n")
        (tmp_path / "go").touch()
        assert screen.end() == 0
    lines = sorted(f"[rank {rank}] {word}" for rank in range(2) for word in ("begun", "ended"))
    assert sorted(line for line in screen.text.splitlines() if line.startswith("[rank")) == lines
    assert sorted(moorage("logs", "-f", "screen").out.splitlines()) == lines


def test_groups_run_their_own_commands(cluster: Nodes) -> None:
    groups = [
        {"name": "head", "commands": ["echo head $MOORAGE_RANK"], "resources": SMALL},
        {"name": "work", "nodes": 2, "commands": ["echo $MOORAGE_GROUP $MOORAGE_RANK"]},
    ]
    run = cluster.server.submit("groups", commands=[], groups=groups)
    view = cluster.ended(run)
    assert view.summary.state == "succeeded", view.summary
    said = [cluster.output(run, rank) for rank in range(3)]
    assert said == ["head 0\n", "work 1\n", "work 2\n"]


def test_a_killed_agent_and_a_killed_server_in_the_middle(cluster: Nodes, tmp_path: Path) -> None:
    go = tmp_path / "go"
    commands = [WAIT, "echo $MOORAGE_RANK"]
    run = cluster.server.submit("kill", nodes=3, commands=commands, mounts=shared(tmp_path))
    cluster.reaches(run, "running")
    cluster.kill("b")
    cluster.server.kill()
    cluster.server.start()
    for name in ("a", "c"):  # the new server has another address
        cluster.kill(name)
    go.touch()
    for number, name in enumerate(NAMES):
        cluster.start(name, f"127.0.0.{number + 1}")
    view = cluster.ended(run)
    assert view.summary.state == "succeeded", view.summary
    assert [one.attempt for one in latest(view)] == [1, 1, 1]
    assert [cluster.output(run, rank) for rank in range(3)] == ["0\n", "1\n", "2\n"]
