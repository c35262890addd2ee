"""ssh, scp, rsync and what an editor does, by a run's name: into a process and into a container,
on a host that only a jump host reaches."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

import imagebuild
from system.cli_harness import COMMAND, PATIENCE, Command
from testbed.bed import Bed, bed_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not imagebuild.BUSYBOX.exists(), reason="busybox-static is not installed"),
    pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed"),
]
FLEET = """\
type: fleet
name: lab
ssh_config:
  user: root
  identity_file: {key}
  host_key: accept-new
  proxy_jump: {{hostname: {jump}, user: root, identity_file: {key}}}
  hosts: [{host}]
"""
TASK = """\
type: task
name: {name}
fleets: [lab]
resources: {{cpu: 0.5}}
commands: [echo up; exec sleep 1000]
"""
BOX = """\
image: docker-archive:/var/tmp/box.tar
volumes: [/usr:/usr:ro, /lib:/lib:ro, /lib64:/lib64:ro]
env:
  PATH: /bin:/usr/bin
"""
INSTALL = """\
set -e
uname -m >&2
place=$HOME/.vscode-server/bin/0123abc
mkdir -p $place
cat > $place/server.py <<'END'
import http.server, os
os.chdir(os.path.dirname(__file__))
made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print("listening on", made.server_port, flush=True)
made.serve_forever()
END
exec python3 $place/server.py
"""
"""As the installers of editors: a script on the standard input of a shell without a terminal puts
a server into the home directory and starts it on the loopback, where it is reached by the
forwarding of the same connection."""


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with bed_of(2) as made:
        yield made


@pytest.fixture(scope="module")
def moorage(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    place = tmp_path_factory.mktemp("jump")
    command = Command(place / "home")
    jump, host = bed.hosts
    box = imagebuild.docker_archive(place / "box.tar", [imagebuild.busybox()], Env=["FROM=image"])
    text = b64encode(box.read_bytes()).decode()
    host.run("sh", "-c", "base64 -d > /var/tmp/box.tar", text=text)
    bed.partition(bed.here, host)
    files = {
        "fleet": FLEET.format(key=bed.key, jump=jump.address, host=host.address),
        "plain": TASK.format(name="plain"),
        "box": TASK.format(name="box") + BOX,
    }
    try:
        for name, text in files.items():
            (place / f"{name}.yml").write_text(text)
            applied = command("apply", "-y", "-d", "-f", str(place / f"{name}.yml"))
            assert applied.code == 0, applied.err
        for name in ("plain", "box"):
            words = [*COMMAND, "logs", "-f", name]
            with subprocess.Popen(words, env=command.environment, stdout=-1) as logs:
                assert logs.stdout is not None
                assert logs.stdout.readline() == b"up\n"
                logs.kill()
        assert command("ssh-config").code == 0
        yield command
    finally:
        command("stop", "-x", "-y", "plain", "box")
        command("fleet", "delete", "-y", "--force", "lab")
        command.end()


def call(moorage: Command, *words: str) -> str:
    done = subprocess.run(
        words, env=moorage.environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, ""), words
    return done.stdout


@pytest.mark.parametrize("run", ["plain", "box"])
def test_ssh_scp_and_rsync_by_name(bed: Bed, moorage: Command, tmp_path: Path, run: str) -> None:
    config = str(moorage.home / "ssh/config")
    said = call(moorage, "ssh", "-F", config, run, "cat /proc/sys/kernel/hostname; echo $FROM")
    assert said.split() == [bed.hosts[1].name, *(["image"] if run == "box" else [])]
    content = bytes(range(256)) * 4096
    (tmp_path / "big").write_bytes(content)
    call(moorage, "scp", "-q", "-F", config, str(tmp_path / "big"), f"{run}:big")
    call(moorage, "rsync", "-az", "-e", f"ssh -F {config}", f"{run}:big", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content


@pytest.mark.parametrize("run", ["plain", "box"])
def test_an_editor_installs_its_server_and_reaches_it(moorage: Command, run: str) -> None:
    # On an address of this process alone, where no other takes the port before ssh has it.
    here = (
        f"127.{os.getpid() >> 14 & 127 | 128}.{os.getpid() >> 7 & 127}.{os.getpid() & 127 | 128}"
    )
    with socket.socket() as free:
        free.bind((here, 0))
        proxy = f"{here}:{free.getsockname()[1]}"
    config = str(moorage.home / "ssh/config")
    words = ["ssh", "-T", "-F", config, "-D", proxy, run, "sh"]
    with subprocess.Popen(
        words, env=moorage.environment, stdin=-1, stdout=-1, stderr=-1, text=True
    ) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(INSTALL)
        session.stdin.close()
        said = session.stdout.readline()
        assert said.startswith("listening on "), said
        page = call(
            moorage,
            *("curl", "-sS", "--max-time", "20", "--socks5-hostname", proxy),
            f"http://127.0.0.1:{said.split()[-1]}/server.py",
        )
        assert "serve_forever" in page
        session.terminate()
