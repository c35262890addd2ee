"""Jobs whose `fsync` waits for uploads go to nodes that can do it."""

from __future__ import annotations

from moorage.core.cluster import Cluster
from moorage.core.named import wrong_kind
from moorage.core.reactor import on_hello
from moorage.core.shape import where_of
from moorage.protocol.agent import Hello, Isolation, NodeResources
from moorage.specs.mounts import Bucket
from moorage.specs.task import Task


def cluster(**nodes: str | None) -> Cluster:
    made = Cluster()
    has = NodeResources(4, "x86", 2**34, 2**36)
    for name, why in nodes.items():
        on_hello(made, Hello(2, "bench", name, "boot", has, Isolation(fsync=why), [], []), 0.0)
    return made


def test_only_nodes_that_can() -> None:
    plain = Task(commands=["x"], mounts=[Bucket("/a", "s3", "b", mode="cached")])
    held = Task(commands=["x"], mounts=[Bucket("/a", "s3", "b", mode="cached", durable="fsync")])
    assert where_of(plain) is None
    where = where_of(held)
    both = cluster(able=None, old="its kernel")
    assert [node.name for node in both.nodes.values() if node.admitted(where)] == ["able"]
    assert wrong_kind(both, where) == []
    (problem,) = wrong_kind(cluster(old="its kernel"), where)
    assert problem.message == "on no node can fsync wait for uploads: old: its kernel"
    assert problem.field == "file_mounts"
