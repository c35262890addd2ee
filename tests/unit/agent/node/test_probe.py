from __future__ import annotations

from pathlib import Path

from moorage.agent.node.probe import probe
from moorage.agent.supply import Supply
from moorage.data.sources import Sources
from moorage.protocol.agent import Isolation, Launch, Limits
from moorage.specs.mounts import HostPath


def test_limits_that_this_node_cannot_keep_are_noted(tmp_path: Path) -> None:
    launch = Launch(
        run=1,
        run_name="r",
        user="u",
        job=1,
        index=0,
        attempt=1,
        commands=["true"],
        limits=Limits(cpus=1, memory=2, shm=3),
    )
    supply = Supply(Sources(tmp_path, lambda digests: iter(())))
    assert probe(launch, tmp_path, supply, Isolation()) == ([], [])
    assert probe(launch, tmp_path, supply, Isolation(cgroup="no root", mounts="no mounts")) == (
        [],
        [
            "resources.shm_size: not enforced; no mounts",
            "resources.memory: limits each process, not the whole job; no root",
            "resources.cpu: not enforced; no root",
        ],
    )


def test_what_is_wrong_with_a_mount_is_told_with_its_position(tmp_path: Path) -> None:
    mounts = [HostPath(str(tmp_path), "/a"), HostPath("/none/here", "/b", read_only=True)]
    launch = Launch(
        run=1,
        run_name="r",
        user="u",
        job=1,
        index=0,
        attempt=1,
        commands=["true"],
        mounts=mounts,
    )
    supply = Supply(Sources(tmp_path, lambda digests: iter(())))
    [problem], _ = probe(launch, tmp_path, supply, Isolation())
    assert problem.startswith("mounts[1]: /none/here does not exist on this node; ")
