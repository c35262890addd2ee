"""`docker: true`: a daemon of the job's own, with containers, a network and ports; nothing of it
is left afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from urllib.request import urlopen

import pytest

import imagebuild
from moorage.agent.containers import daemon
from moorage.protocol.agent import Isolation
from system.cli_harness import COMMAND, PATIENCE, Command
from system.keeper_harness import gone, groups, keeper_pid

pytestmark = pytest.mark.root
TASK = """\
type: task
name: dock
docker: true
ports: [18123]
files: [box.tar]
commands:
  - docker load -q -i box.tar
  - docker run --rm test:1 echo from the inside
  - docker run -d -p 18123:80 test:1 sh -c 'echo served > /made; exec busybox httpd -f -h / -p 80'
  - until busybox wget -qO- http://127.0.0.1:18123/made 2> /dev/null; do :; done
  - echo up; exec sleep 1000
"""


@pytest.fixture
def moorage(tmp_path: Path) -> Iterator[Command]:
    if why := daemon.why_not(True, Isolation()):
        pytest.skip(why)
    if not imagebuild.BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    command = Command(tmp_path / "home")
    command.home.mkdir()
    (command.home / "config.yml").write_text("docker: true\n")
    imagebuild.docker_archive(tmp_path / "box.tar", [imagebuild.busybox()], Env=["PATH=/bin"])
    (tmp_path / "task.yml").write_text(TASK)
    yield command
    command("stop", "-x", "-y", "dock")
    command("wait", "dock")
    command.end()


def begun(moorage: Command, place: Path) -> subprocess.Popen[str]:
    words = [*COMMAND, "apply", "-y", "-f", str(place / "task.yml")]
    return subprocess.Popen(
        words,
        env=moorage.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,
    )


def test_a_job_has_a_daemon_and_its_ports_and_leaves_nothing(
    moorage: Command, tmp_path: Path
) -> None:
    with begun(moorage, tmp_path) as applied:
        assert applied.stdout is not None
        assert applied.stderr is not None
        lines = list(takewhile(lambda line: line != "up\n", applied.stdout))
        assert lines[1:2] == ["from the inside\n"], (lines, applied.communicate())
        said = next(line for line in applied.stderr if "is port 18123" in line)
        port = int(said.split()[1].rpartition(":")[2])
        with urlopen(f"http://127.0.0.1:{port}/made", timeout=PATIENCE) as reply:
            assert reply.read() == b"served\n"
        assert "jobs may have a daemon of their own" in moorage("node", "show", "1").out
        docker = moorage("exec", "dock", "--", "docker", "ps", "-q")
        assert len(docker.out.split()) == 1
        home = moorage.home / "agent"
        daemon = int(moorage("exec", "dock", "--", "cat", "/run/containerd/docker.pid").out)
        assert not Path("/run/containerd/docker.sock").exists()
        os.kill(keeper_pid(home), signal.SIGKILL)
        os.kill(int((home / "lock").read_text()), signal.SIGKILL)
        assert applied.wait(PATIENCE) != 0
    assert gone(daemon)
    assert not groups(home)
    table = Path("/proc/self/mountinfo").read_text()
    mounts = [line.split()[4] for line in table.splitlines()]
    # Daemons of other tests mount meanwhile, elsewhere.
    assert not [point for point in mounts if point.startswith((str(home), "/run/containerd"))]


def test_who_may_not_is_told(moorage: Command, tmp_path: Path) -> None:
    (moorage.home / "config.yml").write_text("{}\n")
    done = moorage("plan", "-f", str(tmp_path / "task.yml"), cwd=tmp_path)
    assert done.code == 2
    assert "no node gives jobs a Docker daemon" in done.err
    assert "nobody allowed it: write docker: true" in done.err
