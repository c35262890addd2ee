"""A program through a shell and an interpreter of this machine, as ssh would bring it there."""

import io
import shutil
import subprocess
import sys

import pytest

from moorage.backends.ssh.interface import HostProblem
from moorage.backends.ssh.onhost import frame
from moorage.backends.ssh.program import Program, answer, command, new_word

SHELLS = [shell for shell in ("sh", "bash", "zsh", "fish", "tcsh", "ksh") if shutil.which(shell)]


@pytest.mark.parametrize("shell", SHELLS)
def test_any_login_shell_passes_it_on(shell, tmp_path):
    word = new_word()
    request = Program("supervise", ("place", "install", "leftovers", "unit")).request(
        word, {"action": "stop", "directory": str(tmp_path / "none"), "init": ""}
    )
    said = subprocess.run(
        [shell, "-c", command(["no-such-python", sys.executable])],
        input=request + b"what follows is the program's",
        capture_output=True,
        check=True,
    )
    assert said.stdout.decode().split()[0] == frame.SHELL
    assert answer(word, said.stdout.decode()) == ({"changed": False},)


def test_without_an_interpreter_it_says_so():
    said = subprocess.run(
        ["sh", "-c", command(["no-such-python"])], capture_output=True, text=True, check=True
    )
    assert frame.NO_PYTHON in said.stdout


def test_a_name_that_a_shell_would_take_apart_is_refused():
    with pytest.raises(HostProblem):
        command(["/opt/my python/bin/python3"])


def test_only_the_line_with_the_word_is_an_answer():
    word = new_word()
    assert answer(word, f'moorage-other {{"value": 1}}\n{word} {{"value": 2}}\n') == (2,)
    assert answer(word, "noise\n") is None
    with pytest.raises(HostProblem, match="full; make space"):
        answer(word, f'{word} {{"problem": ["full", "make space"]}}\n')


def test_what_the_system_refuses_has_a_cause_and_a_fix():
    full = OSError(28, "No space left on device", "/a/b")
    assert frame.explain(full) == ["the disk is full in /a", "make space there"]
    denied = PermissionError(13, "Permission denied", "/a/b")
    assert frame.explain(denied)[0] == "/a/b: permission denied"


def test_the_frame_runs_a_program_of_several_modules(capsys):
    body = Program("supervise", ("place", "install", "leftovers", "unit")).request(
        "w", {"action": "remove", "directory": "/no/such", "init": ""}
    )
    stream = io.BytesIO(body)
    stream.read(int(stream.readline()))
    before = dict(sys.modules)
    try:
        assert frame.serve(stream) == 0
    finally:
        sys.modules.clear()
        sys.modules.update(before)
    assert 'w {"value": {"changed": false}}' in capsys.readouterr().out
