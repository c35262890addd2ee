"""A fleet by the command alone: applied, used, drained, changed, deleted, and nothing left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.cli_harness import Command
from system.ssh_harness import leftovers
from testbed.bed import Bed, bed_of
from testbed.shape import ACCOUNT, Shape

pytestmark = pytest.mark.root

FLEET = """\
type: fleet
name: lab
ssh_config:
  identity_file: {key}
  host_key: accept-new
  hosts:
{hosts}
"""
JOB = "type: task\nname: {name}\n{where}\ncommands: [hostname]\n"


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with bed_of([Shape(), Shape(user=ACCOUNT), Shape(user=ACCOUNT, sudo=True)]) as made:
        yield made


@pytest.fixture
def moorage(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path / "home")
    try:
        yield command
    finally:
        command.end()


def write_fleet(path: Path, bed: Bed, *, count: int = 3, more: str = "") -> str:
    hosts = "".join(
        f"    - {{hostname: {host.address}, user: {host.user}}}\n" for host in bed.hosts[:count]
    )
    path.write_text(FLEET.format(key=bed.key, hosts=hosts + more))
    return str(path)


def write_job(path: Path, name: str, where: str) -> str:
    file = path / f"{name}.yml"
    file.write_text(JOB.format(name=name, where=where))
    return str(file)


def states(moorage: Command) -> dict[str, str]:
    view = json.loads(moorage("fleet", "show", "lab", "--json").out)
    return {host["node"]: host["state"] for host in view["hosts"]}


def test_a_fleet_is_applied_used_drained_changed_and_deleted(bed, moorage, tmp_path):
    file = write_fleet(tmp_path / "fleet.yml", bed)
    applied = moorage("apply", "-y", "-f", file)
    assert applied.code == 0, applied.err
    assert [line.split()[2] for line in applied.out.splitlines()] == ["STATE", *["ready"] * 3]
    assert "lab-1 " in applied.err

    for number, host in enumerate(bed.hosts):
        where = f"instances: [{{fleet: lab, instance: {number}}}]"
        ran = moorage("apply", "-y", "-f", write_job(tmp_path, f"on{number}", where))
        assert (ran.code, ran.out) == (0, f"{host.name}\n"), ran.err
    ran = moorage("apply", "-y", "-f", write_job(tmp_path, "some", "fleets: [lab]"))
    assert ran.out.strip() in {host.name for host in bed.hosts}
    wrong = moorage("apply", "-y", "-f", write_job(tmp_path, "none", "fleets: [lb]"))
    assert (wrong.code, wrong.err.splitlines()[-1]) == (
        2,
        f"moorage: error: {tmp_path}/none.yml:3:9: fleets: there is no fleet lb; did you mean "
        "lab? known: local, lab (moorage fleet ls)",
    )

    assert moorage("node", "reboot-check", "lab-0").code == 1
    assert moorage("node", "drain", "lab-0", "--wait").code == 0
    assert moorage("node", "reboot-check", "lab-0").code == 0
    queued = write_job(tmp_path, "later", "instances: [lab-0]")
    assert moorage("apply", "-y", "-d", "-f", queued).code == 0
    waiting = json.loads(moorage("show", "later", "--json").out)
    assert waiting["jobs"][0]["waits_for"] == ("node lab-0: none takes new jobs (draining: lab-0)")
    assert moorage("node", "resume", "lab-0").code == 0
    assert moorage("wait", "later").code == 0

    file = write_fleet(tmp_path / "fleet.yml", bed, count=2)
    planned = moorage("plan", "-f", file)
    assert planned.out.splitlines()[-1].endswith(f"{bed.hosts[2].address} as lab-2: drain, remove")
    assert moorage("apply", "-y", "-f", file).code == 0
    assert states(moorage) == {"lab-0": "ready", "lab-1": "ready"}
    assert leftovers(bed.hosts[2]) == []

    deleted = moorage("fleet", "delete", "lab", "-y")
    assert deleted.code == 0, deleted.err
    assert json.loads(moorage("fleet", "ls", "--json").out) == {"fleets": []}
    assert all(leftovers(host) == [] for host in bed.hosts)
    nodes = json.loads(moorage("node", "ls", "--json").out)["nodes"]
    assert [node.get("fleet", "local") for node in nodes] == ["local"]


def test_a_host_that_cannot_be_had_is_told_with_its_fix(bed, moorage, tmp_path):
    away = f"    - {{hostname: {bed.hosts[0].address}, port: 9}}\n"
    file = write_fleet(tmp_path / "fleet.yml", bed, count=1, more=away)
    applied = moorage("apply", "-y", "-f", file)
    assert applied.code == 1
    assert applied.err.splitlines()[-1].startswith(
        f"moorage: error: lab-1 ({bed.hosts[0].address}:9): "
    )
    assert states(moorage) == {"lab-0": "ready", "lab-1": "unreachable"}
    deleted = moorage("fleet", "delete", "lab", "-y")
    assert deleted.code == 0, deleted.err
    assert leftovers(bed.hosts[0]) == []


def test_a_restarted_server_finds_its_hosts_again(bed, moorage, tmp_path):
    file = write_fleet(tmp_path / "fleet.yml", bed, count=2)
    assert moorage("apply", "-y", "-f", file).code == 0
    slow = tmp_path / "slow.yml"
    commands = "commands: ['until [ -e /srv/go ]; do sleep 0.05; done', hostname]\n"
    slow.write_text(f"type: task\nname: slow\ninstances: [lab-1]\n{commands}")
    assert moorage("apply", "-y", "-d", "-f", str(slow)).code == 0
    assert moorage("server", "stop").code == 0
    bed.hosts[1].inside("touch", "/srv/go")
    waited = moorage("wait", "slow")
    assert waited.code == 0, waited.err
    logs = moorage("logs", "slow")
    assert logs.out == f"{bed.hosts[1].name}\n", logs.err
    assert moorage("fleet", "delete", "lab", "-y").code == 0
    assert all(leftovers(host) == [] for host in bed.hosts)
