"""Ranks in containers on hosts of their own reach each other by ssh, by whatever engine: so MPI
starts there."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import imagebuild
from system.cli_harness import Command
from system.test_gang_hosts import HELLO
from testbed.bed import Bed, bed_of
from testbed.host import Host

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not imagebuild.BUSYBOX.exists(), reason="busybox-static is not installed"),
]
ENGINES = ("moorage", "podman")
FLEET = """\
type: fleet
name: {name}
engines: [{name}]
ssh_config:
  identity_file: {key}
  host_key: accept-new
  hosts: [{hosts}]
"""
TASK = """\
type: task
name: hello-{engine}
nodes: 2
fleets: [{engine}]
image: docker-archive:/var/tmp/box.tar
volumes: [/usr:/usr:ro, /lib:/lib:ro, /lib64:/lib64:ro, /etc/openmpi:/etc/openmpi]
env:
  PATH: /bin:/usr/bin
startup_order: workers-first
stop_criteria: master-done
files: [hello.py]
commands:
  - '[ $MOORAGE_RANK = 0 ] || exec sleep 1000'
  - ssh rank1 'cat /proc/sys/kernel/hostname; echo $MOORAGE_RANK $FROM_IMAGE; pwd'
  - |
    if [ -x /usr/bin/mpirun.openmpi ]; then
      mpirun.openmpi -hostfile $MOORAGE_MPI_HOSTFILE python3 $PWD/hello.py
    else
      echo no MPI
    fi
"""
"""Programs are the host's; a directory that it lacks is made."""


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with bed_of(2 * len(ENGINES)) as made:
        yield made


@pytest.fixture(scope="module")
def moorage(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    place = tmp_path_factory.mktemp("fleet")
    command = Command(place / "home")
    layers = [imagebuild.busybox()]
    box = imagebuild.docker_archive(place / "box.tar", layers, Env=["FROM_IMAGE=yes"])
    text = b64encode(box.read_bytes()).decode()

    def furnish(name: str) -> None:
        hosts = hosts_of(bed, name)
        for host in hosts:
            host.run("sh", "-c", "base64 -d > /var/tmp/box.tar", text=text)
        listed = ", ".join(f"{{hostname: {host.address}, user: root}}" for host in hosts)
        file = place / f"{name}.yml"
        file.write_text(FLEET.format(name=name, key=bed.key, hosts=listed))
        applied = command("apply", "-y", "-f", str(file))
        assert applied.code == 0, applied.err

    try:
        assert command("fleet", "ls").code == 0  # now there is one server for both
        with ThreadPoolExecutor() as pool:
            list(pool.map(furnish, ENGINES))
        yield command
    finally:
        command.end()


def hosts_of(bed: Bed, engine: str) -> list[Host]:
    first = 2 * ENGINES.index(engine)
    return bed.hosts[first : first + 2]


@pytest.mark.parametrize("engine", ENGINES)
def test_ranks_in_containers_reach_each_other(
    bed: Bed, moorage: Command, tmp_path: Path, engine: str
) -> None:
    by = "" if engine == "moorage" else f" by {engine}"
    if f"run in containers{by}\n" not in (shown := moorage("node", "show", f"{engine}-0").out):
        pytest.skip(next(line for line in shown.splitlines() if line.startswith("images")))
    (tmp_path / "hello.py").write_text(HELLO)
    (tmp_path / "task.yml").write_text(TASK.format(engine=engine))
    ran = moorage("apply", "-y", "-f", str(tmp_path / "task.yml"), cwd=tmp_path)
    assert ran.code == 0, ran.out + ran.err
    said = [line.removeprefix("[rank 0] ") for line in ran.out.splitlines()]
    names = {host.name for host in hosts_of(bed, engine)}
    assert said[0] in names
    assert said[1:3] == ["1 yes", "/workflow"]
    if "no MPI" not in said:
        hellos = [line.split() for line in said if line.startswith("rank ")]
        assert {words[5].rstrip(":") for words in hellos} == names
        assert [words[-1] for words in hellos] == ["11", "11"]
