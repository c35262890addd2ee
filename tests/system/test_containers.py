"""Containers from the command line to the last trace of them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import imagebuild
import registry
from moorage.agent.keeper import family
from system.cli_harness import COMMAND, PATIENCE, Command
from system.keeper_harness import gone, groups, keeper_pid, modes


@pytest.fixture
def moorage(tmp_path: Path) -> Iterator[Command]:
    if (why := modes(tmp_path / "probe")["probed"].containers) is not None:
        pytest.skip(why)
    if not imagebuild.BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    command = Command(tmp_path / "home")
    yield command
    command.end()


@pytest.fixture
def archive(tmp_path: Path) -> str:
    path = imagebuild.docker_archive(
        tmp_path / "box.tar",
        [imagebuild.busybox()],
        Env=["PATH=/bin", "LEVEL=image"],
        Cmd=["sh", "-c", "echo by default"],
        WorkingDir="/made",
    )
    return f"docker-archive:{path}"


def test_run_and_apply(moorage: Command, archive: str, tmp_path: Path) -> None:
    done = moorage("run", "--image", archive, "-u", "ann", "--", "sh", "-c", "id -un; pwd; exit 4")
    assert (done.code, done.out) == (4, "ann\n/made\n")
    done = moorage("run", "--image", archive)
    assert (done.code, done.out) == (0, "by default\n"), done.err
    work = tmp_path / "work"
    work.mkdir()
    (work / "mine.txt").write_text("my file\n")
    (work / "a.yml").write_text(
        f"type: task\nimage: {archive}\nfiles: [mine.txt]\nenv: [LEVEL=mine]\n"
        "commands:\n- cat mine.txt\n- echo $LEVEL\n- pwd\n"
    )
    done = moorage("apply", "-y", "-f", "a.yml", cwd=work)
    assert (done.code, done.out) == (0, "my file\nmine\n/workflow\n"), done.err
    (work / "b.yml").write_text(f"type: task\nimage: {archive}\n")
    done = moorage("apply", "-y", "-f", "b.yml", cwd=work)
    assert (done.code, done.out) == (0, "by default\n"), done.err
    shown = moorage("show", "4").out
    assert f"image: {archive}" in shown
    assert "containers" in moorage("node", "show", "1").out


def test_what_cannot_be(moorage: Command, archive: str, tmp_path: Path) -> None:
    done = moorage("run", "--image", "docker-archive:/none.tar", "--", "true")
    assert done.code == 2
    assert ": /none.tar does not exist on this node" in done.err
    done = moorage("run", "--image", "Bad Name", "--", "true")
    assert (done.code, "--image: 'Bad Name' is not an image" in done.err) == (2, True)
    done = moorage("run", "--image", archive, "-u", "eve", "--", "true")
    assert "user: the image has no account 'eve'" in done.err
    done = moorage("run", "-u", "eve", "--", "true")
    assert "--user: there is no container without --image" in done.err


def test_an_account_of_a_registry_is_told_to_nobody_else(moorage: Command, tmp_path: Path) -> None:
    manifest, blobs = imagebuild.blobs([imagebuild.busybox()], PATH="/bin")
    (tmp_path / "hub").mkdir()
    with registry.serve(tmp_path / "hub", account=True) as hub:
        hub.push("team/box", "1", manifest, blobs)
        (tmp_path / "a.yml").write_text(
            f"type: task\nimage: {hub.name('team/box:1')}\ncommands: [echo pulled]\n"
            "registry_auth:\n  username: bob\n  password: ${{ env.TOKEN }}\n"
        )
        moorage.variables["TOKEN"] = registry.PASSWORD
        done = moorage("apply", "-y", "-f", "a.yml", cwd=tmp_path)
        assert (done.code, done.out) == (0, "pulled\n"), done.err
    said = [moorage(*arguments, cwd=tmp_path) for arguments in (
        ("show", "1"), ("show", "1", "--json"), ("plan", "-f", "a.yml"),
        ("plan", "-f", "a.yml", "--json"), ("plan", "-f", "a.yml", "--show-spec"), ("events",),
    )]  # fmt: skip
    assert registry.PASSWORD not in "".join(one.out + one.err for one in said)
    for place, _, names in os.walk(moorage.home):
        for path in (Path(place, name) for name in names):
            with suppress(FileNotFoundError):  # what comes and goes
                if path.is_file() and registry.PASSWORD.encode() in path.read_bytes():
                    assert path.name.startswith("moorage.db")
                    assert path.stat().st_mode & 0o077 == 0


def marked(mark: str) -> list[int]:
    """Processes of an attempt; nothing about those in a container names the home."""
    wanted = f"{family.MARKER}={mark}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if wanted in place.read_bytes().split(b"\0"):
                found.append(int(place.parent.name))
    return found


@pytest.mark.root
@pytest.mark.parametrize("victims", ["keeper", "agent and keeper"])
def test_nothing_stays_after_kills(moorage: Command, archive: str, victims: str) -> None:
    box = ["run", "--image", archive, "--", "sh", "-c", "echo up; sleep 1000"]
    with subprocess.Popen(
        [*COMMAND, *box], env=moorage.environment, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        home = moorage.home / "agent"
        job = marked(family.mark(str(home / "attempts" / "1.1.0")))
        assert job
        os.kill(keeper_pid(home), signal.SIGKILL)
        if "agent" in victims:
            os.kill(int((home / "lock").read_text()), signal.SIGKILL)
        assert run.wait(PATIENCE) != 0
    assert all(gone(pid) for pid in job)
    assert not groups(home)
    assert not list((home / "attempts").glob("*/image"))
    assert str(moorage.home) not in Path("/proc/self/mountinfo").read_text()
