from __future__ import annotations

from pathlib import Path

import pytest

from moorage.cli.run import _unseen, run


@pytest.mark.parametrize(
    ("command", "volumes", "expected"),
    [
        ("python train.py", [], "train.py"),
        ("python -u ./train.py --lr 1", ["/a:/b"], "./train.py"),
        ("./train.py", [], "./train.py"),
        ("train.py", [], "train.py"),  # which no shell finds either
        ("python train.py", [".:/workflow:ro"], ""),
        ("python train.py", [".:."], ""),
        ("python /code/train.py", [".:/code"], ""),
        ("cat sh", [], "sh"),
        ("sh -c true", [], ""),
        ("ls src other.py", [], ""),
        ("echo -train.py", [], ""),
    ],
)
def test_files_that_the_job_does_not_see_are_noticed(
    command: str,
    volumes: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("train.py", "sh", "-train.py"):
        (tmp_path / name).touch()
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    assert _unseen(command.split(), volumes) == expected


def test_options_end_where_the_command_begins() -> None:
    context = run.make_context("run", ["-n", "ab", "python", "x.py", "-d", "--epochs", "2"])
    assert context.params["command"] == ("python", "x.py", "-d", "--epochs", "2")
    assert (context.params["name"], context.params["detach"]) == ("ab", False)
