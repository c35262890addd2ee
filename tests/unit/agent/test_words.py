"""A command that is run without a shell does what the shell would have done: each generated line
that counts as plain is run both ways."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from moorage.agent import words
from moorage.agent.keeper import programs
from moorage.agent.script import compose

BASH = shutil.which("bash")
SHOW = "#!{}\nimport os, sys\nprint(sys.argv, sorted(os.environ.items()), os.getcwd())\n"
SEED = int(os.environ.get("MOORAGE_TEST_SEED", random.SystemRandom().randrange(10**6)))
ROUNDS = 40 * int(os.environ.get("MOORAGE_TEST_ROUNDS", "1"))
PIECES = [
    "a", "-b", "--c=d", "/e.f", "x,y", "g:h@i", "%1", "+2", "^", "=", "é", "~", "~root", "a=~",
    "*", "?", "[ab]", "{a,b}", "{1..3}", "$HOME", "$((1))", "$(echo)", "`echo`", "#", "a#b", "!",
    "\\", "\\n", "'", '"', "' '", "'$x'", '"a b"', '"$HOME"', '"`"', '"\\a"', "''", '""', "'é\t'",
    "|", ";", "&", "<", ">", "(", ")", "\n", "\t", "  ", "\r", "\x01", "'\x01'", "'\n'", "-e",
    "-n", "if", "[[", "]]", "A=1", "A+=1", "\x7f", "'\x7f'", '"!a"', "@(a)", "2", "2>x",
    "\u00a0", "\udce9",
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("show", "a", "if"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(SHOW.format(sys.executable))
        program.chmod(0o755)
    return tmp_path


def variables(place: Path) -> dict[str, str]:
    return {"PATH": f"{place}/bin:/usr/bin:/bin", "HOME": "/h", "PYTHONUTF8": "1", "A": "é b"}


def by_shell(place: Path, command: str) -> tuple[int, bytes]:
    script = place / "script"
    script.write_text(compose([command], place / "number"), errors="surrogateescape")
    done = subprocess.run(
        [str(BASH), str(script)], capture_output=True, env=variables(place), cwd=place
    )
    return done.returncode, done.stdout


def directly(place: Path, argv: list[str]) -> tuple[int, bytes] | None:
    env = variables(place)
    path = programs.find(argv[0], env["PATH"])
    if path is None:
        return None
    env |= {"PWD": str(place), "SHLVL": "1", "_": path}
    done = subprocess.run(argv, executable=path, capture_output=True, env=env, cwd=place)
    return done.returncode, done.stdout


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_a_plain_command_does_what_the_shell_does(place: Path) -> None:
    chance, plain = random.Random(SEED), 0
    for _ in range(ROUNDS):
        command = chance.choice(["show ", "show", "a", f"{place}/bin/show "])
        # Most pieces are the shell's, so a line keeps its chance to be plain only when short.
        for _ in range(chance.randrange(4)):
            command += chance.choice(["", " ", " "]) + chance.choice(PIECES)
        argv = words.plain(command)
        if argv is None:
            continue
        done = directly(place, argv)
        if done is not None:
            plain += 1
            assert done == by_shell(place, command), f"{command!r}, seed {SEED}"
    assert plain, f"no line was plain, seed {SEED}"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("true", ["true"]),
        ("  python -m train --lr=0.1 'a b'\n", ["python", "-m", "train", "--lr=0.1", "a b"]),
        ("""a'b'"c d" ''""", ["abc d", ""]),
        ("echo hello, world", ["echo", "hello,", "world"]),
        ("./run.sh", ["./run.sh"]),
    ],
)
def test_plain_commands_are_told(command: str, expected: list[str]) -> None:
    assert words.plain(command) == expected


@pytest.mark.parametrize(
    "command",
    ["", "true x", "echo -n a", "cd /", "A=1 b", "a; b", "a\nb", "a $x", "a ~", "a *", "a #", "if",
     "'export' A", "exit 3", "kill 1", "a > b", 'a "$x"', "setsid a", "a \\", "''", "a {1,2}", ":",
     "time a", "! a", "a 'b", "a\x00", "'a\udce9'", "x='1'", "test -e /", "[ 1 ]",
     "/usr/bin/setsid a", "env setsid a", "nice -n 5 'setsid' a", "%1", "-x"],
)  # fmt: skip
def test_whatever_is_doubtful_is_the_shell_s(command: str) -> None:
    assert words.plain(command) is None


@pytest.mark.parametrize(
    "name",
    [
        "BASH_ENV",
        "BASH_FUNC_ls%%",
        "SHELLOPTS",
        "LC_ALL",
        "PWD",
        "SHLVL",
        "_",
        "IFS",
        "a.b",
        "ENV",
    ],
)
def test_variables_that_a_shell_changes_are_left_to_it(name: str) -> None:
    assert words.undisturbed({"PATH": "/bin", "HOME": "/", "CUDA_VISIBLE_DEVICES": ""})
    assert not words.undisturbed({"PATH": "/bin", name: "1"})
    assert not words.undisturbed({"HOME": "/"})
