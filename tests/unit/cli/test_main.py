from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module

import click
import pytest
from click.testing import CliRunner

from moorage.cli import main as program
from moorage.cli.server import role
from moorage.errors import Conflict, Forbidden, InvalidInput, NotFound, Problem, Unreachable
from moorage.protocol.api import ServerView


def run_main(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        program.main(arguments)
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


def verb(name: str) -> click.Command:
    word = name.replace("-", "_")
    return getattr(import_module(f"moorage.cli.{word}"), word)


def commands() -> list[tuple[str, click.Command]]:
    found = []
    for name in program.VERBS:
        command = verb(name)
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", command.commands[sub]) for sub in command.commands]
    return found


@pytest.mark.parametrize(
    ("age", "leads", "words"),
    [(1.0, True, "leads"), (1.0, False, "stands by"), (60.0, False, "silent")],
)
def test_a_server_that_is_not_heard_of_is_not_called_a_standby(age, leads, words):
    view = ServerView(url="http://127.0.0.1:1", version="0.1.0", leads=leads, age=age)
    assert role(view) == words


@pytest.mark.parametrize("verb", ["start", "run"])
def test_an_empty_database_is_refused_before_anything_is_started(
    capsys, tmp_path, monkeypatch, verb
):
    monkeypatch.setenv("MOORAGE_HOME", str(tmp_path))
    code, _, said = run_main(capsys, "server", verb, "--database", "")
    assert code == 2
    assert "--database: it is empty; write sqlite or postgresql://HOST/DATABASE" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_verb_shows_an_example(name, command):
    help_text = command.help or ""
    assert "Example" in help_text
    assert f"moorage {name.split()[0]}" in help_text.split("Example")[1]


@pytest.mark.parametrize("name", program.VERBS)
def test_the_list_of_verbs_says_what_each_verb_says_of_itself(name):
    command = verb(name)
    assert (command.help or "").strip().splitlines()[0] == program.VERBS[name]


def test_help_imports_no_verb_and_nothing_heavy():
    script = (
        "import sys, moorage.cli.main as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('loaded', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "click" in loaded
    assert not [name for name in program.VERBS if f"moorage.cli.{name}" in loaded]
    heavy = {
        "yaml",
        "http.client",
        "msgspec",
        "asyncio",
        "ssl",
        "subprocess",
        "starlette",
        "email",
    }
    assert not heavy & loaded
    assert len(loaded) < 160


def test_ps_imports_neither_yaml_nor_the_server():
    script = "import sys, moorage.cli.ps\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    packages = {name.split(".")[1] for name in loaded if name.startswith("moorage.")}
    assert packages <= {
        "cli",
        "decoding",
        "errors",
        "ids",
        "loopback",
        "protocol",
        "specs",
        "units",
    }
    assert not {"yaml", "asyncio", "starlette", "cronsim", "blake3", "moorage.specs.load"} & loaded


def test_importing_the_package_imports_nothing():
    script = "import sys; a = set(sys.modules); import moorage; print(*(set(sys.modules) - a))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == {"moorage", "__future__"}


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InvalidInput("bad"), 2, "moorage: error: bad"),
        (Conflict("taken"), 2, "moorage: error: taken"),
        (NotFound("no run x"), 3, "moorage: error: no run x"),
        (Forbidden("no"), 4, "moorage: error: no"),
        (Unreachable("gone"), 5, "moorage: error: gone"),
        (ZeroDivisionError("oops"), 1, "moorage: error: internal error: ZeroDivisionError: oops"),
    ],
)
def test_errors_are_one_line_with_their_exit_code(monkeypatch, capsys, error, code, line):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(program.moorage, "main", fail)
    ended, out, err = run_main(capsys)
    assert (ended, out) == (code, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_several_problems_are_one_line_each(monkeypatch, capsys):
    def fail(*_: object, **__: object) -> None:
        raise InvalidInput(Problem("a", file="f.yml", line=3), Problem("b", field="x"))

    monkeypatch.setattr(program.moorage, "main", fail)
    _, _, err = run_main(capsys)
    assert err == "moorage: error: f.yml:3: a\nmoorage: error: x: b\n"


def test_debug_shows_where_an_error_comes_from(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise NotFound("x")

    monkeypatch.setattr(program.moorage, "main", fail)
    monkeypatch.setenv("MOORAGE_DEBUG", "1")
    with pytest.raises(NotFound):
        program.main([])


@pytest.mark.parametrize("arguments", [["nope"], ["ps", "--nope"], ["show"], ["ps", "-n", "0"]])
def test_a_wrong_command_line_is_bad_input_in_one_line(capsys, arguments):
    code, _, err = run_main(capsys, *arguments)
    assert code == 2
    assert err.startswith("moorage: error: ")
    assert err.count("\n") == 1
    assert "--help" in err


def test_without_a_verb_the_help_is_shown():
    result = CliRunner().invoke(program.moorage, [])
    assert result.exit_code == 0
    assert "Exit codes" in result.output


def test_a_reader_that_left_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        command = [sys.executable, "-m", "moorage", "completion", "bash"]
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (program.BROKEN_PIPE, b"")


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (
            ">/dev/full",
            1,
            "moorage: error: the output cannot be written: No space left on device\n",
        ),
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
def test_output_that_nobody_can_take(redirection: str, code: int, said: str) -> None:
    command = f"{sys.executable} -m moorage completion bash {redirection}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["stpo"], "there is no verb 'stpo' (did you mean 'stop'?); see moorage --help"),
        (["qqq"], "there is no verb 'qqq'; see moorage --help"),
        (
            ["scancel", "3"],
            "there is no verb 'scancel' (did you mean 'stop'?); see moorage --help",
        ),
        (
            ["storage", "rm"],
            "moorage storage has no command 'rm' (did you mean 'delete'?); see moorage storage",
        ),
        (["node", "lss"], "moorage node has no command 'lss' (did you mean 'ls'?); see moorage n"),
        (["apply", "a.yml"], "missing option '-f': moorage apply -f FILE; see moorage apply --h"),
        (
            ["ps", "--neewst", "3"],
            "no such option '--neewst' (did you mean '--newest'?); see moorage ps --help",
        ),
        (["exec", "a", "ls", "-L"], "'-L'; options of the job's own command stand after --; see"),
        (
            ["show", "my", "run"],
            "'run': nothing was expected there: moorage show takes RUN alone; put quotes around a "
            "value with spaces; see moorage show --help",
        ),
        (
            ["ps", "a", "b"],
            "'a b': nothing was expected there: moorage ps takes options only; put quotes around "
            "a value with spaces; see moorage ps --help",
        ),
        (["show", " "], "invalid value for 'RUN': the name of a run is empty; see moorage show"),
        (["ps", "-n", "x"], "'x' is not a valid whole number; see moorage ps --help"),
        (["completion"], "missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish; see"),
    ],
)
def test_a_wrong_command_line_is_one_clear_line(capsys, arguments, line):
    code, out, err = run_main(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert line in err


def test_a_group_without_a_verb_shows_its_help(capsys):
    code, out, err = run_main(capsys, "node")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: moorage node")


@pytest.mark.parametrize(
    "name", [name for name, command in commands() if isinstance(command, click.Group)]
)
def test_the_commands_of_a_verb_are_summarized_whole(name, capsys):
    listed = run_main(capsys, name, "--help")[1].partition("Commands:")[2]
    assert listed
    assert "..." not in listed


def test_a_schema_is_json_and_an_unknown_kind_bad_input(capsys):
    code, out, _ = run_main(capsys, "schema", "task")
    assert (code, json.loads(out)["type"]) == (0, "object")
    code, out, err = run_main(capsys, "schema", "tsak")
    assert (code, out) == (2, "")
    assert err == "moorage: error: there is no schema of tsak; known: task, fleet\n"
