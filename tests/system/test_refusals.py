"""Two hosts of which one lacks a path: jobs go to the other, by the command alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.cli_harness import Command
from testbed.bed import Bed, bed_of
from testbed.host import Host

pytestmark = pytest.mark.root

FLEET = """\
type: fleet
name: lab
ssh_config:
  identity_file: {key}
  host_key: accept-new
  hosts: [{hosts}]
"""
JOB = """\
type: task
name: {name}
fleets: [lab]
resources: {{cpu: 2..}}
volumes: ["{path}:/data:ro"]
commands: [hostname, ls /data]
"""
FIRST = "type: task\nfleets: [lab]\nresources: {cpu: 2..}\ncommands: [hostname]\n"
HOLD = "type: task\nname: hold\ninstances: [{node}]\nresources: {{cpu: 2..}}\n"
HOLD += "commands: [mkfifo held, cat <>held]\n"
LACKS = "does not exist on this node; create it, or drop :ro"


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with bed_of(2) as made:
        yield made


@pytest.fixture(scope="module")
def moorage(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    place = tmp_path_factory.mktemp("fleet")
    command = Command(place / "home")
    hosts = ", ".join(f"{{hostname: {host.address}, user: root}}" for host in bed.hosts)
    (place / "fleet.yml").write_text(FLEET.format(key=bed.key, hosts=hosts))
    try:
        applied = command("apply", "-y", "-f", str(place / "fleet.yml"))
        assert applied.code == 0, applied.err
        yield command
        deleted = command("fleet", "delete", "lab", "-y")
        assert deleted.code == 0, deleted.err
    finally:
        command.end()


@pytest.fixture(scope="module")
def has(bed: Bed, moorage: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Host]:
    """The node that has the data, which is not the first choice; and its host."""
    place = tmp_path_factory.mktemp("first")
    ran = moorage("apply", "-y", "-f", written(place, FIRST))
    assert ran.code == 0, ran.err
    first = ran.out.strip()
    number, host = next((n, h) for n, h in enumerate(bed.hosts) if h.name != first)
    host.inside("sh", "-c", "mkdir -p /srv/data && touch /srv/data/seen")
    return f"lab-{number}", host


def written(directory: Path, text: str) -> str:
    (directory / "task.yml").write_text(text)
    return str(directory / "task.yml")


def shown(moorage: Command, name: str) -> dict:
    return json.loads(moorage("show", name, "--json").out)


def other(node: str) -> str:
    return "lab-1" if node == "lab-0" else "lab-0"


def test_the_other_host_is_tried_at_once(moorage, has, tmp_path):
    node, host = has
    ran = moorage("apply", "-y", "-f", written(tmp_path, JOB.format(name="one", path="/srv/data")))
    assert (ran.code, ran.out) == (0, f"{host.name}\nseen\n"), ran.err
    line = f"moorage: node {other(node)} refuses one: /srv/data {LACKS}; trying others"
    assert ran.err.splitlines().count(line) == 1
    found = moorage("show", "one").out
    assert "attempt 1 on " + other(node) in found
    assert "/srv/data does not exist on this node" in found
    told = moorage("events", "--run", "one", "--json").out
    (refused,) = [e for e in map(json.loads, told.splitlines()) if e["kind"] == "job.refused"]
    assert (refused["node"], refused["data"]["attempt"]) == (other(node), 1)


def test_it_waits_for_the_other_and_a_new_server_knows_why(moorage, has, tmp_path):
    node, host = has
    held = moorage("apply", "-y", "-d", "-f", written(tmp_path, HOLD.format(node=node)))
    assert held.code == 0, held.err
    task = written(tmp_path, JOB.format(name="two", path="/srv/data"))
    assert moorage("apply", "-y", "-d", "-f", task).code == 0
    with moorage.on_terminal("events", "-w", "--run", "two", columns=200) as events:
        events.expect("job.refused")
        events.interrupt()
    assert moorage("server", "stop").code == 0
    assert moorage("server", "start").code == 0
    text = moorage("show", "two").out
    assert f"refused by node {other(node)}: /srv/data {LACKS}" in text
    assert moorage("stop", "hold", "-y").code == 0
    assert moorage("logs", "-f", "two").out == f"{host.name}\nseen\n"


def test_what_none_has_any_more_fails_and_each_says_why(moorage, has, tmp_path):
    node, host = has
    host.inside("mkdir", "/srv/brief")
    held = moorage("apply", "-y", "-d", "-f", written(tmp_path, HOLD.format(node=node)))
    assert held.code == 0, held.err
    task = written(tmp_path, JOB.format(name="three", path="/srv/brief"))
    assert moorage("apply", "-y", "-d", "-f", task).code == 0
    host.inside("rmdir", "/srv/brief")
    assert moorage("stop", "hold", "-y").code == 0
    assert moorage("wait", "three").code == 1
    assert (
        f"no node can run it; nodes lab-0, lab-1: /srv/brief {LACKS}"
        in moorage("show", "three").out
    )
    refused = moorage("apply", "-y", "-f", task)
    assert (refused.code, refused.out) == (2, "")
