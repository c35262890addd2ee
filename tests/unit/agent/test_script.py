from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from moorage.agent.script import CANNOT_JOIN, compose

SHELLS = [shell for shell in ("bash", "dash", "zsh", "busybox") if shutil.which(shell)]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    return [request.param, "sh"] if request.param == "busybox" else [request.param]


def run(shell: list[str], place: Path, *commands: str, **env: str) -> tuple[int, str, str]:
    script = place / "script"
    script.write_text(compose(commands, place / "it's the command"))
    done = subprocess.run(
        [*shell, str(script)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **env},
    )
    number = place / "it's the command"
    return done.returncode, done.stdout, number.read_text().strip() if number.exists() else ""


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        (["echo a", "echo b"], (0, "a\nb\n", "2")),
        (["echo a", "false", "echo b"], (1, "a\n", "2")),
        (["cd /", "x=1", "pwd; echo $x"], (0, "/\n1\n", "3")),
        (["# nothing but a remark"], (0, "", "1")),
        (["echo a # remark", "echo b"], (0, "a\nb\n", "2")),
        (["cat <<END\nit's\nEND", "echo b"], (0, "it's\nb\n", "2")),
        (["cat <<'END'\n$x `y`\nEND"], (0, "$x `y`\n", "1")),
        (["echo a \\", "echo b"], (0, "a\nb\n", "2")),
        (["echo a; exit 7", "echo b"], (7, "a\n", "1")),
        (["set -e\nfalse\necho no", "echo b"], (1, "", "1")),
        (["false\necho yes", "echo b"], (0, "yes\nb\n", "2")),
        (["if true; then\n  echo a\nfi"], (0, "a\n", "1")),
        (["f() { echo $1; }", "f a"], (0, "a\n", "2")),
        (["exec echo a", "echo b"], (0, "a\n", "1")),
        (["trap 'echo bye' EXIT", "exit 4"], (4, "bye\n", "2")),
        (["true &", "wait; echo b"], (0, "b\n", "2")),
        (["(exit 9)", "echo b"], (9, "", "1")),
        ([""], (0, "", "1")),
        ([], (0, "", "")),
    ],
)
def test_commands_run_as_written(
    shell: list[str], tmp_path: Path, commands: list[str], expected: tuple[int, str, str]
) -> None:
    assert run(shell, tmp_path, *commands) == expected


@pytest.mark.parametrize("broken", ["echo 'a", "if true", "echo )", "cat <<"])
def test_a_syntax_error_is_one_command_s_own(
    shell: list[str], tmp_path: Path, broken: str
) -> None:
    code, output, number = run(shell, tmp_path, "echo a", broken, "echo no")
    assert code != 0
    assert (output, number) == ("a\n", "2")


def test_the_group_is_joined_before_anything_runs(shell: list[str], tmp_path: Path) -> None:
    group = tmp_path / "cgroup.procs"
    group.touch()
    code, output, _ = run(shell, tmp_path, "echo ${MOORAGE_JOIN-unset}", MOORAGE_JOIN=str(group))
    assert (code, output, group.read_text()) == (0, "unset\n", "0\n")
    missing = str(tmp_path / "no" / "group")
    assert run(shell, tmp_path, "echo no", MOORAGE_JOIN=missing)[:2] == (CANNOT_JOIN, "")


def test_a_number_that_cannot_be_written_fails_nothing(shell: list[str], tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(compose(["echo a"], tmp_path / "no" / "such"))
    done = subprocess.run([*shell, str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\n", "")


def test_each_process_is_limited_where_the_job_cannot_be(shell: list[str], tmp_path: Path) -> None:
    script = tmp_path / "script"
    take = "{} -c 'print(len(bytearray({} << 20)))'"
    small, large = (take.format(sys.executable, size) for size in (10, 400))
    script.write_text(compose([small, large], tmp_path / "command", 200 << 20))
    done = subprocess.run([*shell, str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, f"{10 << 20}\n")
    assert "MemoryError" in done.stderr
