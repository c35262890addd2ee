"""Variables and identity of a job that is looked into."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moorage.agent.keeper import family
from moorage.agent.visits.entering import Job, NotEntered, enter


@contextmanager
def waiting() -> Iterator[subprocess.Popen[bytes]]:
    env = {"COLOUR": "blue", "MOORAGE_JOIN": "/x", "ODD": "a=b\udcff"}
    pipe = subprocess.PIPE
    with subprocess.Popen(["/bin/cat"], stdin=pipe, stdout=pipe, env=env, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")  # the kernel shows variables only a moment after it has begun
        process.stdout.read(1)
        yield process


def told(pid: int, place: Path, **other: Any) -> dict[str, Any]:
    started = family.start_time(pid)
    return {
        "key": "1.1.0", "pid": pid, "start": started, "groups": [], "cwd": "/",
        "directory": str(place), "variables": "",
    } | other  # fmt: skip


def test_variables_are_those_of_the_process_or_those_that_were_kept(tmp_path: Path) -> None:
    with waiting() as process:
        found = Job(told(process.pid, tmp_path)).environment()
        assert (found["COLOUR"], found["ODD"]) == ("blue", "a=b\udcff")
        assert "MOORAGE_JOIN" not in found
        assert found["PATH"].startswith("/")
        kept = family.variables(process.pid)
        assert "COLOUR=blue\0" in kept
        changed = told(process.pid, tmp_path, variables="COLOUR=red\0PATH=/p\0")
        assert Job(changed).environment() == {"COLOUR": "red", "PATH": "/p"}
    assert family.variables(process.pid) == ""


def test_a_process_that_has_ended_or_is_another_one_is_not_entered(tmp_path: Path) -> None:
    with waiting() as process:
        os.close(Job(told(process.pid, tmp_path)).descriptor())
        other = Job(told(process.pid, tmp_path, start=1))
        with pytest.raises(NotEntered, match="has ended"):
            other.descriptor()
        late = Job(told(process.pid, tmp_path))
    with pytest.raises(NotEntered, match="has ended"):
        late.descriptor()


@pytest.mark.root
@pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="busybox-static is not installed")
def test_a_root_that_is_not_its_namespaces_is_taken(tmp_path: Path) -> None:
    """As an engine makes it by chroot(2): nobody who enters sees what is outside."""
    (tmp_path / "bin").mkdir()
    shutil.copy("/bin/busybox", tmp_path / "bin/sh")
    script = ["unshare", "--mount", "chroot", str(tmp_path), "/bin/sh", "-c", "echo up; read end"]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                enter(Job(told(process.pid, tmp_path)))
                os.write(writer, " ".join(path.name for path in Path("/").iterdir()).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader, "rb") as pipe:
            assert pipe.read() == b"bin"
        os.waitpid(child, 0)
        process.communicate(b"\n")
