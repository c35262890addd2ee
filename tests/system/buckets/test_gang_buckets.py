"""A bucket that the ranks of one job share, as SkyPilot's page has workers do."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from moorage.specs.mounts import Bucket
from system.nodes import latest, nodes
from testbed.stores import StoreServer

# What was looked for too early is known to be missing for some seconds: rank 1 starts later.
SHARING = """
if [ $MOORAGE_RANK = 0 ]; then echo hello > /shared/word
else until cat /shared/word 2>/dev/null; do sleep 0.2; done; fi
echo copy-$MOORAGE_RANK > /collected/rank-$MOORAGE_RANK
"""


@pytest.mark.root
def test_ranks_share_a_bucket(tmp_path: Path, seaweed: StoreServer) -> None:
    name, kept = (f"{word}-{os.urandom(4).hex()}" for word in ("shared", "kept"))
    mounts = [
        Bucket("/shared", "lab", name, managed=True, persistent=False),
        Bucket("/collected", "lab", kept, managed=True, mode="copy", sync_back=True),
    ]
    with nodes(tmp_path, "a", "b") as cluster:
        access = seaweed.access
        body = {"name": "lab", "kind": "s3", "endpoint": access.endpoint, "path_style": True,
                "secrets": access.secrets}  # fmt: skip
        assert cluster.server.call("POST", "/v1/stores", body).status == 200
        run = cluster.server.submit(
            nodes=2,
            startup_order="master-first",
            commands=[SHARING],
            mounts=[msgspec.to_builtins(one) for one in mounts],
            resources={"cpu": {"count": {"min": 0.1, "max": 0.1}}},
        )
        view = cluster.ended(run)
        assert view.summary.state == "succeeded", view.summary
        assert [(one.rank, one.node) for one in latest(view)] == [(0, "a"), (1, "b")]
        assert [cluster.output(run, rank) for rank in (0, 1)] == ["", "hello\n"]
        assert seaweed.listing(kept) == {"rank-0": 7, "rank-1": 7}
        cluster.follow(lambda: name not in seaweed.buckets())
        assert cluster.server.call("DELETE", f"/v1/storages/{kept}").json["state"] == "deleted"
