"""What SkyPilot's page on storage shows, run: its files as they are, with SeaweedFS for Amazon."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.cli_harness import Command
from testbed.stores import StoreServer

MARK = os.urandom(4).hex()
PAGE = f"""\
name: storage-demo

resources:
  cloud: aws

file_mounts:
  /mybucket:
    name: my-sky-bucket-{MARK}
    source: ~/dataset
    store: s3
    persistent: True
    mode: MOUNT
  /datasets: ~/datasets
  /datasets-s3: s3://enriched-topical-chat-{MARK}
  /one-00001-of-01024: s3://enriched-topical-chat-{MARK}/fake/train-00001-of-01024
  /datasets-storage:
    name: sky-dataset-{MARK}
    source: ~/datasets
    store: s3
    persistent: True
    mode: COPY
  /dataset-storage-mount:
    name: sky-dataset-{MARK}
    source: ~/datasets
    mode: MOUNT
  /huge-dataset-mount:
    source: s3://enriched-topical-chat-{MARK}
    mode: MOUNT
  /outputs-mount:
    name: my-output-bucket-{MARK}
    store: s3
    mode: MOUNT
  /datasets-multisource-storage:
    name: sky-multisource-{MARK}
    store: s3
    source: [~/mydir/myfile.txt, ~/datasets]
  /sharedfs:
    name: my-sky-sharedfs-{MARK}
    store: s3
    mode: MOUNT
    persistent: False

run: |
  cd /
  find mybucket datasets datasets-s3 one-00001-of-01024 datasets-storage dataset-storage-mount \\
    huge-dataset-mount datasets-multisource-storage -type f | LC_ALL=C sort
  echo result > /outputs-mount/result
  echo ping > /sharedfs/ping
  cat /sharedfs/ping /one-00001-of-01024
"""
SHOWN = """\
dataset-storage-mount/a
datasets-multisource-storage/datasets/a
datasets-multisource-storage/myfile.txt
datasets-s3/fake/train-00001-of-01024
datasets-storage/a
datasets/a
huge-dataset-mount/fake/train-00001-of-01024
mybucket/b
one-00001-of-01024
ping
records
"""


@pytest.fixture
def moorage(tmp_path: Path, seaweed: StoreServer) -> Iterator[Command]:
    for name in ("dataset/b", "datasets/a", "mydir/myfile.txt"):
        path = tmp_path / "user" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "user/datasets/link").symlink_to("a")
    seaweed.make_bucket(f"enriched-topical-chat-{MARK}")
    seaweed.write(f"enriched-topical-chat-{MARK}", "fake/train-00001-of-01024", b"records\n")
    keys = seaweed.access.secrets
    command = Command(
        tmp_path / "home",
        {
            "HOME": str(tmp_path / "user"),
            "AWS_ENDPOINT_URL_S3": seaweed.endpoint,
            "AWS_ACCESS_KEY_ID": keys["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": keys["secret_access_key"],
            "AWS_REGION": "us-east-1",
        },
    )
    yield command
    command.end()


@pytest.mark.root
def test_the_page(moorage: Command, seaweed: StoreServer, tmp_path: Path) -> None:
    file = tmp_path / "storage_demo.yaml"
    file.write_text(PAGE)
    done = moorage("apply", "-y", "-f", str(file))
    assert (done.code, done.out) == (0, SHOWN), done.err
    assert "1 symbolic link is not uploaded into a bucket" in done.err
    assert seaweed.read(f"my-output-bucket-{MARK}", "result") == b"result\n"
    assert seaweed.listing(f"sky-multisource-{MARK}") == {"datasets/a": 10, "myfile.txt": 16}

    (tmp_path / "user/datasets/a").write_text("changed")
    planned = moorage("plan", "-f", str(file))
    assert f"s3://sky-dataset-{MARK}: 1 file; 7 B to send" in planned.out, planned

    listed = json.loads(moorage("storage", "ls", "--check", "--json").out)["storages"]
    states = {one["name"].removesuffix(f"-{MARK}"): one["state"] for one in listed}
    made = {"my-sky-bucket", "sky-dataset", "my-output-bucket", "sky-multisource"}
    assert {name for name, state in states.items() if state == "ready"} >= made
    assert "my-sky-sharedfs" not in states, "it was not to stay"
    assert moorage("storage", "delete", "--all", "-y").code == 0
    again = moorage("storage", "delete", "--all", "-y")
    assert (again.code, again.err) == (0, "moorage: no bucket has a name\n")
    left = {name for name in seaweed.buckets() if name.endswith(MARK)}
    assert left == {f"enriched-topical-chat-{MARK}"}
