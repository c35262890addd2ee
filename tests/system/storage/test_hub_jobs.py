"""Repositories of Hugging Face in jobs and commands, against a stand-in for the site."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.cli_harness import Command
from testbed.hub import LARGE, Hub, running

FILES = {"config.json": b"{}", "sub/ü x": b"hello", "weights": os.urandom(2 * LARGE), "z": b""}
TASK = """\
type: task
file_mounts:
  /model: hf://lab/model
  /one: hf://lab/model/sub/ü x
  /set: {{source: hf://datasets/lab/set@v1, mode: COPY, read_only: true}}
{more}
commands:
- find /model -type f | sort; cat /one /set/old; sha256sum < /model/weights
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running() as started:
        started.push("lab/model", FILES)
        started.push("datasets/lab/set", {"old": b"1\n"}, revision="v1")
        started.push("datasets/lab/set", {"new": b"2\n"})
        started.push("lab/gated", FILES, gated=True)
        yield started


@pytest.fixture(scope="module")
def moorage(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Iterator[Command]:
    command = Command(tmp_path_factory.mktemp("home"), {"HF_ENDPOINT": hub.url})
    assert command("server", "start").code == 0
    yield command
    command.end()


def test_a_job_has_a_repository(moorage: Command, hub: Hub, tmp_path: Path) -> None:
    file = tmp_path / "task.yml"
    file.write_text(TASK.format(more=""))
    planned = moorage("plan", "-f", str(file))
    assert "hf://lab/model -> /model, COPY: at least 2 objects, " in planned.out
    first = moorage("apply", "-y", "-f", str(file))
    assert first.code == 0, first.err
    told = first.out.splitlines()
    assert told[:4] == [f"/model/{name}" for name in ("config.json", "sub/ü x", "weights", "z")]
    assert told[4].startswith("hello1")
    sent = len(hub.sent)
    assert moorage("apply", "-y", "-f", str(file)).code == 0
    assert len(hub.sent) == sent, "what is here is fetched again"


def test_a_plan_says_what_cannot_be_had(moorage: Command, tmp_path: Path) -> None:
    file = tmp_path / "task.yml"
    more = ["  /a: hf://lab/nothing", "  /b: hf://lab/gated", "  /c: hf://lab/model@v7",
            "  /d: hf://lab/model/nowhere", "  /e: ./gone"]  # fmt: skip
    file.write_text(TASK.format(more="\n".join(more)))
    planned = moorage("plan", "-f", str(file))
    assert planned.code == 2
    assert "file_mounts./a: hf://lab/nothing: there is no such repository, or it" in planned.err
    assert "file_mounts./b: hf://lab/gated: the repository is gated" in planned.err
    assert "file_mounts./c: hf://lab/model@v7: the repository has no such revision" in planned.err
    assert "file_mounts./d: there is nothing at hf://lab/model/nowhere" in planned.err
    fix = "correct the path (paths are relative to the directory of the file), or make it"
    assert f"file_mounts./e: {tmp_path}/gone: no such file or directory; {fix}" in planned.err
    file.write_text("type: task\nfile_mounts:\n  /a: {source: hf://lab/model}\ncommands: [a]\n")
    assert (
        "Hugging Face can only be copied; write mode: COPY" in moorage("plan", "-f", str(file)).err
    )


def test_commands_read_repositories(moorage: Command, tmp_path: Path) -> None:
    here = tmp_path / "here"
    assert moorage("storage", "cp", "hf://lab/model", str(here)).code == 0
    assert {
        str(p.relative_to(here)): p.read_bytes() for p in here.rglob("*") if p.is_file()
    } == FILES
    again = moorage("storage", "sync", "hf://lab/model", str(here))
    assert again.err == "moorage: 0 files, 0 B, 4 unchanged\n"
    counted = moorage("storage", "du", "hf://lab/model")
    assert (counted.code, counted.err) == (0, "")
    assert counted.out.splitlines()[-1].split() == ["total", "4", "2.0", "MB"]
    back = moorage("storage", "cp", str(here), "hf://lab/model")
    assert (back.code, back.err) == (
        2, "moorage: error: DST: Hugging Face can only be read; name another place\n"
    )  # fmt: skip
    assert moorage("store", "check", "hf").out.startswith("hf answers in ")
