"""What each kind of store tells rclone, tried on a server of that kind: an object written by the
product's options is found by the test bed's, and the other way round."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from moorage.specs.stores.record import Access
from moorage.specs.stores.registry import kind
from testbed.stores import StoreServer, program


def rclone(options: Mapping[str, str], *arguments: str, given: bytes = b"") -> bytes:
    """With the options of a kind in the environment, where nobody else can read them."""
    variables = {f"RCLONE_CONFIG_R_{name.upper()}": text for name, text in options.items()}
    done = subprocess.run(
        [program("rclone"), "--retries=1", "--low-level-retries=1", *arguments],
        env={**os.environ, **variables, "RCLONE_CONFIG": "/dev/null"},
        input=given,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def options(access: Access) -> Mapping[str, str]:
    found = kind(access.kind)
    assert found is not None
    return found.rclone(access)


def test_rclone_reaches_a_store_by_its_record(object_store: StoreServer) -> None:
    bucket = object_store.make_bucket()
    told = options(object_store.access)
    object_store.write(bucket, "a b/ü.txt", b"theirs")
    assert rclone(told, "cat", f"R:{bucket}/a b/ü.txt") == b"theirs"
    rclone(told, "rcat", f"R:{bucket}/own/x", given=b"ours")
    assert object_store.read(bucket, "own/x") == b"ours"
    assert rclone(told, "lsf", "-R", "--files-only", f"R:{bucket}").decode().splitlines() == [
        "a b/ü.txt",
        "own/x",
    ]


@pytest.mark.parametrize("text", ["file:///", "declared"])
def test_a_directory_as_a_store(tmp_path: Path, text: str) -> None:
    (tmp_path / "buck").mkdir()
    base = "" if text == "declared" else str(tmp_path).lstrip("/") + "/"
    told = options(Access("file", str(tmp_path) if text == "declared" else ""))
    rclone(told, "rcat", f"R:{base}buck/x/y", given=b"1")
    assert (tmp_path / "buck" / "x" / "y").read_bytes() == b"1"
