"""ssh from rank to rank, on agents of this machine with addresses of their own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

import imagebuild
from moorage.specs.mounts import HostPath
from system.keeper_harness import modes
from system.nodes import Nodes, nodes

pytestmark = pytest.mark.skipif(
    shutil.which("ssh") is None or shutil.which("sshd", path="/usr/sbin:/usr/bin") is None,
    reason="there is no OpenSSH client or server here",
)
LAST = "[ $MOORAGE_RANK = 0 ] || { cat /proc/self/cgroup; exec sleep 1000; }"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with nodes(tmp_path_factory.mktemp("gang"), "a", "b", "c") as cluster:
        yield cluster


def told(cluster: Nodes, name: str, *commands: str, nodes: int = 3) -> tuple[int, list[str]]:
    """The run, and what rank 0 writes; the others wait for its end."""
    run = cluster.server.submit(
        name, nodes=nodes, commands=[LAST, *commands], stop_criteria="master-done"
    )
    view = cluster.ended(run)
    said = cluster.output(run, 0)
    assert view.summary.state == "succeeded", (view.summary, said)
    return run, said.splitlines()


def test_every_rank_is_reached_by_name_and_by_address(cluster: Nodes) -> None:
    say = "'echo $MOORAGE_RANK $PWD'"
    names = ("rank1", "b", "127.0.0.2", "rank2", "c", "rank0")
    _, said = told(cluster, "names", *(f"ssh {name} {say}" for name in names))
    assert said == ["1 /workflow"] * 3 + ["2 /workflow"] * 2 + ["0 /workflow"]


def test_a_session_is_part_of_its_rank(cluster: Nodes) -> None:
    run, said = told(
        cluster,
        "part",
        "echo own > /tmp/note",
        "ssh rank1 'test -e /tmp/note || cat /proc/self/cgroup'",
        "scp -q /tmp/note rank1:/tmp/note && ssh rank1 cat /tmp/note",
        "ssh rank1 'exit 7' || echo $?",
        "ssh rank1 'ssh rank2 ssh rank0 echo round $MOORAGE_RANK'",
    )
    groups = cluster.output(run, 1).splitlines()
    assert said == [*groups, "own", "7", "round 1"]


def test_the_keys_are_private_and_go_with_the_job(cluster: Nodes) -> None:
    look = "cd ${MOORAGE_MPI_HOSTFILE%/*}; find peers gate -type f ! -perm /077 | sort"
    run, said = told(cluster, "keys", "(" + look + ")", "cat $MOORAGE_MPI_HOSTFILE")
    assert {"gate/client.pub", "gate/host_key", "peers/key", "peers/config"} <= set(said)
    left = [files for place, _, files in os.walk(cluster.directory) if place.endswith("/peers")]
    assert not any(left)
    assert sshd_of(cluster) == []
    with cluster.client as client:
        shown = repr(client.run(run)) + repr(list(client.events(run=run)))
    assert "secret" not in shown
    assert "PRIVATE" not in shown


def test_what_lets_other_ranks_in_is_not_told_as_left_behind(cluster: Nodes) -> None:
    run = cluster.server.submit("bare", nodes=2, commands=["true"])
    view = cluster.ended(run)
    outcomes = [attempt.outcome for attempt in view.jobs[0].attempts]
    assert [outcome and outcome.message for outcome in outcomes] == ["", ""]
    run = cluster.server.submit("leaves", nodes=2, commands=["setsid sleep 1000 & true"])
    outcome = cluster.ended(run).jobs[0].attempts[0].outcome
    assert outcome is not None
    assert "1 process was left behind" in outcome.message


def test_a_job_on_one_node_has_none_of_it(cluster: Nodes) -> None:
    run = cluster.server.submit("one", commands=["ls ${TMPDIR%/*}; echo $PATH"])
    assert cluster.ended(run).summary.state == "succeeded"
    assert "peers" not in cluster.output(run, 0)
    assert "gate" not in cluster.output(run, 0)


def test_strangers_are_refused_and_the_account_is_left_alone(cluster: Nodes) -> None:
    place = "${MOORAGE_MPI_HOSTFILE%/*}/peers"
    port = f"$(sed -n 's/^Port //p' {place}/config | sed -n 2p)"
    stranger = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    _, said = told(
        cluster,
        "strangers",
        "ssh-keygen -q -t ed25519 -N '' -f /tmp/key",
        "until ssh rank1 true; do :; done",
        f"/usr/bin/ssh -F none {stranger} -i /tmp/key -p {port} 127.0.0.2 true 2>&1 | tail -1",
        f"sed -i 's/^rank1 /rank9 /' {place}/known_hosts",
        "ssh rank1 true 2>&1 | head -1",
        "ssh -G github.com | grep -c peers || true",
    )
    assert "Permission denied (publickey)" in said[0]
    assert "No ED25519 host key is known for rank1 and you have requested strict" in said[1]
    assert said[-1] == "0"


@pytest.mark.root
@pytest.mark.parametrize("user", ["root", "ann"])
def test_containers_reach_each_other(cluster: Nodes, tmp_path: Path, user: str) -> None:
    if (why := modes(tmp_path / "probe")["probed"].containers) is not None:
        pytest.skip(why)
    if not imagebuild.BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    box = imagebuild.docker_archive(
        tmp_path / "box.tar", [imagebuild.busybox()], Env=["PATH=/bin"]
    )
    programs = [HostPath(target=path, source=path, read_only=True) for path in ("/usr", "/lib")]
    programs.append(HostPath(target="/lib64", source="/lib64", read_only=True))
    run = cluster.server.submit(
        f"box-{user}",
        nodes=2,
        image=f"docker-archive:{box}",
        user=user,
        mounts=[msgspec.to_builtins(mount) for mount in programs],
        env={"PATH": "/bin:/usr/bin"},
        stop_criteria="master-done",
        commands=[
            "[ $MOORAGE_RANK = 0 ] || exec sleep 1000",
            "cat $MOORAGE_MPI_HOSTFILE",
            "ssh rank1 'echo $MOORAGE_RANK; id -un; test -e /bin/busybox && pwd'",
            "PATH=/bin; /run/moorage/peers/bin/ssh rank1 true || echo $?",
        ],
    )
    view = cluster.ended(run)
    said = cluster.output(run, 0).splitlines()
    assert view.summary.state == "succeeded", (view.summary, said)
    hosts = ["127.0.0.1 slots=1", "127.0.0.2 slots=1"]
    assert said[:5] == [*hosts, "1", user, "/workflow"]
    assert said[5].startswith("moorage: there is no ssh here: install openssh-client")
    assert said[6:] == ["127"]


def sshd_of(cluster: Nodes) -> list[str]:
    """Servers that were started for jobs of these nodes."""
    mark = str(cluster.directory).encode()
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            lines.append(path.read_bytes())
    return [str(line) for line in lines if b"sshd" in line and mark in line]
