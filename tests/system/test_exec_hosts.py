"""Looking into ranks on other machines, as root and as another account, and where no ssh is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.cli_harness import COMMAND, PATIENCE, Command
from testbed.bed import Bed, bed_of
from testbed.shape import ACCOUNT, Shape

pytestmark = pytest.mark.root
FLEET = """\
type: fleet
name: lab
placement: cluster
ssh_config:
  identity_file: {key}
  host_key: accept-new
  hosts:
    - {{hostname: {first}}}
    - {{hostname: {second}, user: {account}}}
"""
TASK = """\
type: task
name: pair
nodes: 2
fleets: [lab]
env: {COLOUR: blue}
startup_order: workers-first
commands: [echo ready; exec sleep 600]
"""
READY = {b"[rank 0] ready\n", b"[rank 1] ready\n"}
SEEN = 'echo "$(id -un) $MOORAGE_RANK $COLOUR"'


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with bed_of([Shape(), Shape(user=ACCOUNT)]) as made:
        yield made


@pytest.fixture
def moorage(bed: Bed, tmp_path: Path) -> Iterator[Command]:
    first, second = bed.hosts
    command = Command(tmp_path / "home")
    try:
        places = {"first": first.address, "second": second.address, "account": ACCOUNT}
        apply(command, tmp_path, FLEET.format(key=bed.key, **places))
        apply(command, tmp_path, TASK, "-d")
        words = [*COMMAND, "logs", "-f", "pair"]
        with subprocess.Popen(words, env=command.environment, stdout=subprocess.PIPE) as logs:
            assert logs.stdout is not None
            # The worker is ready before the master is there.
            assert {logs.stdout.readline() for _ in range(2)} == READY
            logs.kill()
        yield command
    finally:
        command("stop", "-x", "-y", "pair")
        command("fleet", "delete", "-y", "--force", "lab")
        command.end()


def apply(moorage: Command, directory: Path, text: str, *options: str) -> None:
    file = directory / "file.yml"
    file.write_text(text)
    applied = moorage("apply", "-y", *options, "-f", str(file))
    assert applied.code == 0, applied.err


def test_each_rank_is_reached_as_its_account(moorage: Command, bed: Bed, tmp_path: Path) -> None:
    said = [moorage("exec", "--rank", rank, "pair", "--", "sh", "-c", SEEN) for rank in "01"]
    lines = [done.out.strip() for done in said]
    assert {line.split()[0] for line in lines} == {"root", ACCOUNT}
    assert [line.split()[1:] for line in lines] == [["0", "blue"], ["1", "blue"]]
    by_ssh = [moorage("ssh", "--rank", rank, "pair", SEEN) for rank in "01"]
    assert [done.out.strip() for done in by_ssh] == lines, by_ssh
    config = str(moorage.home / "ssh/config")
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * 4096)
    words = ["scp", "-F", config, str(big), "pair.1:big"]
    assert moorage("ssh-config").out.splitlines()[-1] == "# known at present: pair pair.1"
    copied = subprocess.run(
        words, env=moorage.environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert copied.stderr == ""
    size = moorage("exec", "--rank", "1", "pair", "--", "wc", "-c", "big")
    assert size.out == f"{256 * 4096} big\n"
    for host in bed.hosts:
        host.inside("mount", "--bind", "/dev/null", "/usr/sbin/sshd")
    try:
        refused = moorage("ssh", "--rank", "1", "pair", "true")
        assert "install the package openssh-server there" in refused.err
        assert "Traceback" not in refused.err
        assert moorage("exec", "--rank", "1", "pair", "--", "true").code == 0
    finally:
        for host in bed.hosts:
            host.inside("umount", "/usr/sbin/sshd")
