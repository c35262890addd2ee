"""Buckets shown as a file has them. Reading back: test_show.py."""

from __future__ import annotations

import pytest

from moorage.specs.bucketshow import written
from moorage.specs.mounts import Bucket, CacheOptions


@pytest.mark.parametrize(
    ("bucket", "shown"),
    [
        (Bucket("/a", "s3", "buck", "x/y", mode="copy"), "s3://buck/x/y"),
        (Bucket("/a", "minio", "buck", mode="copy"), "minio://buck"),
        (Bucket("/a", "s3", "buck"), {"source": "s3://buck", "mode": "MOUNT"}),
        (
            Bucket("/a", "s3", "buck", mode="copy", read_only=True),
            {"source": "s3://buck", "mode": "COPY", "read_only": True},
        ),
        (
            Bucket(
                "/a",
                "gcs",
                "buck",
                "p",
                mode="cached",
                managed=True,
                persistent=False,
                sources=["./a"],
                preset="model-checkpoint-rw",
                cache=CacheOptions(transfers=8, buffer_size=64 * 1024**2, write_back=0.5),
                flush_timeout=7200,
            ),
            {
                "name": "buck",
                "source": "./a",
                "store": "gcs",
                "path": "p",
                "mode": "MOUNT_CACHED",
                "type": "MODEL_CHECKPOINT_RW",
                "persistent": False,
                "flush_timeout": "2h",
                "config": {
                    "mount_cached": {
                        "transfers": 8,
                        "buffer_size": "64M",
                        "vfs_write_back": "0.5s",
                    }
                },
            },
        ),
    ],
)
def test_a_bucket(bucket: Bucket, shown: object) -> None:
    assert written(bucket) == shown
