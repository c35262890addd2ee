"""The real ssh, scp, rsync and sftp to a run by its name."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.cli_harness import PATIENCE, Command
from system.test_exec import begin

pytestmark = pytest.mark.skipif(
    shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin") is None,
    reason="openssh-server is not installed",
)


@pytest.fixture
def moorage(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path / "home")
    begin(command, "-e", "COLOUR=blue")
    yield command
    command("stop", "-x", "-y", "job")
    command("wait", "job")
    command.end()


def call(moorage: Command, *words: str, stdin: str = "") -> tuple[int, str, str]:
    done = subprocess.run(
        words,
        env=moorage.environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_command_runs_in_the_job(moorage: Command) -> None:
    done = moorage("ssh", "job", "echo $COLOUR; pwd; exit 5")
    assert (done.code, done.out, done.err) == (5, "blue\n/workflow\n", "") or (
        done.code == 5 and done.out.startswith("blue\n")
    )
    assert moorage("ssh", "job", "-tt", "tty").out.startswith("/dev/pts/")


def test_files_go_by_scp_sftp_and_rsync(moorage: Command, tmp_path: Path) -> None:
    assert moorage("ssh-config").code == 0
    config = str(moorage.home / "ssh/config")
    big = tmp_path / "big.h5"
    big.write_bytes(bytes(range(256)) * 4096)
    code, _, err = call(moorage, "scp", "-F", config, str(big), "job:there.h5")
    assert (code, err) == (0, "")
    back = tmp_path / "back"
    script = f"get there.h5 {back}\n"
    assert call(moorage, "sftp", "-F", config, "-b", "-", "job", stdin=script)[0] == 0
    assert back.read_bytes() == big.read_bytes()
    if shutil.which("rsync"):
        words = ["rsync", "-az", "-e", f"ssh -F {config}", str(tmp_path / "back"), "job:by/"]
        assert call(moorage, *words) == (0, "", "")
        assert moorage("exec", "job", "--", "ls", "by").out == "back\n"


def test_a_key_that_is_not_the_runs_is_refused(moorage: Command) -> None:
    moorage("ssh-config")
    known = moorage.home / "ssh/known"
    config = moorage.home / "ssh/config"
    other = known / "other"
    assert moorage("ssh", "job", "true").code == 0
    other.write_text((known / "job").read_text().replace("ssh-ed25519 AAAA", "ssh-ed25519 AAAB"))
    text = config.read_text().replace(f'"{known}/job"', f'"{other}"')
    config.write_text(text)
    code, _, err = call(moorage, "ssh", "-F", str(config), "job", "true")
    assert code == 255
    assert "Host key verification failed" in err


def test_files_are_for_the_user_alone(moorage: Command) -> None:
    moorage("ssh-config")
    for name in ("id_ed25519", "config"):
        assert (moorage.home / "ssh" / name).stat().st_mode & 0o077 == 0
