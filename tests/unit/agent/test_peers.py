"""What `ssh` of a job is told of the other ranks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from moorage.agent import peers
from moorage.protocol.agent import Launch
from moorage.protocol.peers import Peer, Peers

RANKS = [
    Peer("a", "10.0.0.1", "root", 17001, "ssh-ed25519 AAAA0"),
    Peer("b", "10.0.0.2", "ada", 17002, "ssh-ed25519 AAAA1", "it's 100% gone"),
    Peer("c", "10.0.0.1", "root", 17003, "ssh-ed25519 AAAA2"),
]


def launch(rank: int = 0) -> Launch:
    told = Peers(RANKS, "private", "ssh-ed25519 AAAA", "host")
    return Launch(
        run=1, run_name="r", user="u", job=1, index=0, attempt=1, rank=rank, nodes=3,
        commands=["true"], peers=told,
    )  # fmt: skip


def test_files_are_private_from_the_start_and_may_be_written_again(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        assert peers.write(launch(), str(tmp_path), "/seen")
        assert peers.write(launch(), str(tmp_path), "/seen")
    finally:
        os.umask(old)
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (tmp_path / "gate" / "listen.conf").read_text().startswith("ListenAddress 10.0.0.1\n")
    assert (tmp_path / "peers" / "known_hosts").read_text().splitlines()[1] == (
        "rank1 ssh-ed25519 AAAA1"
    )
    assert "private" not in repr(launch())


def test_a_job_s_own_settings_stay(tmp_path: Path) -> None:
    env = {"PATH": "/bin", "OMPI_ALLOW_RUN_AS_ROOT": "0"}
    peers.tell(launch(), "/seen", env)
    assert env["PATH"] == "/seen/bin:/bin"
    assert env["OMPI_ALLOW_RUN_AS_ROOT"] == "0"


@pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh here")
def test_ssh_understands_it(tmp_path: Path) -> None:
    place = tmp_path / "a place"
    place.mkdir()
    peers.write(launch(), str(place), str(place / "peers"))

    def ssh(*words: str) -> subprocess.CompletedProcess[str]:
        program = place / "peers" / "bin" / "ssh"
        return subprocess.run([program, *words], capture_output=True, text=True, check=False)

    def settings(host: str) -> dict[str, str]:
        lines = ssh("-G", host, "true").stdout.splitlines()
        return dict(line.split(" ", 1) for line in lines)

    for host, port, name in (("rank0", "17001", "rank0"), ("c", "17003", "rank2")):
        found = settings(host)
        assert (found["hostname"], found["port"]) == ("10.0.0.1", port)
        assert found["hostkeyalias"] == name
        assert found["stricthostkeychecking"] == "true"
        assert found["identityfile"] == f"{place}/peers/key"
    assert settings("10.0.0.2")["user"] == "ada"
    assert settings("elsewhere")["identityfile"] != f"{place}/peers/key"
    refused = ssh("b", "true")
    assert refused.returncode == 255
    assert "moorage: rank 1 on node b: it's 100% gone" in refused.stderr.splitlines()
