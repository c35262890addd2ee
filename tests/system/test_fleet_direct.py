"""Hosts that reach the server's TLS address: no tunnel while they do, one when they do not."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.cli_harness import Command
from system.ssh_harness import leftovers
from testbed.bed import Bed, bed_of
from testbed.host import Host
from testbed.shape import ACCOUNT, Shape

pytestmark = pytest.mark.root
PATIENCE = 60.0
FLEET = """\
type: fleet
name: lab
ssh_config:
  identity_file: {key}
  host_key: accept-new
  hosts:
    - {{hostname: {first}}}
    - {{hostname: {second}, user: {account}}}
"""
DROP = """\
add table inet cut
add chain inet cut out { type filter hook output priority 0; }
add rule inet cut out tcp dport 7321 drop
"""
JOB = "type: task\nname: {name}\ninstances: [{node}]\ncommands: [hostname]\n"


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with bed_of([Shape(), Shape(user=ACCOUNT)]) as made:
        yield made


@pytest.fixture
def moorage(bed: Bed, tmp_path: Path) -> Iterator[Command]:
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home" / "config.yml").write_text("node_lease: 3s\n")
    command = Command(tmp_path / "home")
    started = command("server", "start", "--listen", bed.here.address)
    assert started.code == 0, started.err
    try:
        yield command
    finally:
        command.end()


def apply(moorage: Command, bed: Bed, directory: Path) -> None:
    first, second = bed.hosts
    file = directory / "fleet.yml"
    places = {"first": first.address, "second": second.address, "account": ACCOUNT}
    file.write_text(FLEET.format(key=bed.key, **places))
    applied = moorage("apply", "-y", "-f", str(file))
    assert applied.code == 0, applied.err


def runs_there(moorage: Command, directory: Path, node: str, name: str, host: Host) -> None:
    file = directory / f"{name}.yml"
    file.write_text(JOB.format(name=name, node=node))
    ran = moorage("apply", "-y", "-f", str(file))
    assert (ran.code, ran.out) == (0, f"{host.name}\n"), ran.err


def arguments(host: Host) -> str:
    """Of the agent on the host."""
    return host.inside("sh", "-c", "ps -eww -o args | grep [m]oorage.agent.main || true").stdout


def forwards(bed: Bed) -> list[str]:
    """The tunnels that are kept for hosts of the bed."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0].endswith("ssh") and "-R" in words:
            found += [word for word in words if word in {host.address for host in bed.hosts}]
    return found


def test_agents_dial_the_server_and_a_tunnel_stands_in(bed, moorage, tmp_path):
    apply(moorage, bed, tmp_path)
    first, second = bed.hosts
    place = f"https://{bed.here.address}:7321"
    assert all(f"--server {place} " in arguments(host) for host in bed.hosts)
    assert forwards(bed) == []
    runs_there(moorage, tmp_path, "lab-0", "direct", first)
    runs_there(moorage, tmp_path, "lab-1", "other", second)
    token = (tmp_path / "home" / "server" / "token").read_text()
    assert token.strip() not in arguments(first) + arguments(second)

    # No way to that port any more, in one direction, while ssh goes on.
    first.inside("nft", DROP)
    runs_within(moorage, "lab-0", lambda: forwards(bed) == [first.address])
    runs_there(moorage, tmp_path, "lab-0", "tunnel", first)
    first.inside("nft", "delete table inet cut")

    # Another start finds the way again, without an agent that is up and down for nothing.
    assert moorage("server", "stop").code == 0
    assert moorage("server", "start").code == 0
    runs_within(moorage, "lab-0", lambda: forwards(bed) == [] and place in arguments(first))
    runs_there(moorage, tmp_path, "lab-0", "again", first)
    assert moorage("server", "stop").code == 0
    assert moorage("server", "start", "--listen", "off").code == 0
    runs_within(moorage, "lab-0", lambda: len(forwards(bed)) == 2)
    runs_there(moorage, tmp_path, "lab-1", "off", second)

    deleted = moorage("fleet", "delete", "lab", "-y")
    assert deleted.code == 0, deleted.err
    assert all(leftovers(host) == [] for host in bed.hosts)


def test_agents_and_clients_go_to_the_next_server(bed, database, tmp_path):
    """Two servers, each with a TLS address; the one that leads is killed."""
    servers = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir(mode=0o700)
        (tmp_path / name / "config.yml").write_text(f"database: {database}\n")
        (tmp_path / name / "config.yml").chmod(0o600)
        servers.append(Command(tmp_path / name))
    one, other = servers
    places = [f"{bed.here.address}:7321", f"{bed.here.address}:7322"]
    try:
        for moorage, place in zip(servers, places, strict=True):
            started = moorage(
                "server", "start", "--listen", place, "--node-name", moorage.home.name
            )
            assert started.code == 0, started.err
        # Asked of the one that stands by.
        apply(other, bed, tmp_path)
        assert all(f"--server https://{places[0]}" in arguments(host) for host in bed.hosts)
        runs_there(other, tmp_path, "lab-0", "before", bed.hosts[0])
        home = json.loads((tmp_path / "a" / "server.json").read_text())
        os.kill(home["pid"], signal.SIGKILL)
        runs_within(other, "lab-0", lambda: forwards(bed) == [])
        runs_there(other, tmp_path, "lab-0", "after", bed.hosts[0])
        assert all(f"--server https://{places[0]}" in arguments(host) for host in bed.hosts)
        # A client elsewhere, which knows both, with the authority that both share.
        (tmp_path / "ca.pem").write_text(other("server", "ca").out)
        away = Command(tmp_path / "away")
        urls = ",".join(f"https://{place}" for place in places)
        token, ca = str(tmp_path / "a" / "server" / "token"), str(tmp_path / "ca.pem")
        connected = away("server", "connect", urls, "--token-file", token, "--ca", ca)
        assert connected.out.startswith(f"connected to https://{places[1]} as "), connected.err
        told = away("logs", "before")
        assert told.out == f"{bed.hosts[0].name}\n", told.err
        assert other("fleet", "delete", "lab", "-y").code == 0
    finally:
        one("server", "start")
        for moorage in servers:
            moorage.end()


def test_two_entries_for_one_machine_are_refused(bed, moorage, tmp_path):
    first = bed.hosts[0]
    apply(moorage, bed, tmp_path)
    file = tmp_path / "twice.yml"
    one, two, three, four = first.address.split(".")
    alias = f"{one}.{two}.{int(three) * 256 + int(four)}"  # as the resolver reads it
    text = FLEET.format(key=bed.key, first=alias, second="", account="")
    file.write_text(text.replace("name: lab", "name: twice").rpartition("    - ")[0])
    refused = moorage("apply", "-y", "-f", str(file))
    assert refused.code == 1
    assert refused.err.splitlines()[-1].endswith(
        "this machine (h1) is node lab-0 already; remove one of the two entries: they name the "
        "same machine"
    )
    assert moorage("fleet", "delete", "twice", "-y").code == 0
    runs_there(moorage, tmp_path, "lab-0", "still", first)
    assert moorage("fleet", "delete", "lab", "-y").code == 0
    assert all(leftovers(host) == [] for host in bed.hosts)


def runs_within(moorage, node, is_so):
    """Follow the events until it is so and the node is up."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        told = moorage("node", "ls", "--json")
        if told.code:
            continue  # nobody leads yet
        nodes = json.loads(told.out)["nodes"]
        if is_so() and all(one["state"] == "up" for one in nodes if one["name"] == node):
            return
    events = moorage("events").out
    raise AssertionError(re.sub(r"\n+", "\n", events)[-3000:])
