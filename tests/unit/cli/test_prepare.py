from __future__ import annotations

import io
from pathlib import Path

import pytest

from moorage.cli.prepare import Prepared, read_file
from moorage.cli.run import _here, _variables
from moorage.errors import InvalidInput
from moorage.specs.mounts import Files, HostPath, Repo
from moorage.specs.task import Task

TASK = "type: task\ncommands: [true]\nfiles:\n- data\n- ~/x:/y\n"


def test_relative_paths_belong_to_the_directory_of_the_file(tmp_path, monkeypatch):
    (tmp_path / "task.yml").write_text(TASK)
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.chdir("/")
    prepared = read_file(str(tmp_path / "task.yml"))
    paths = [prepared.local(mount) for mount in prepared.spec.mounts]
    assert paths == [tmp_path / "data", Path("/home/u/x")]


def test_a_file_from_standard_input_belongs_to_the_current_directory(tmp_path, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(TASK.encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    monkeypatch.chdir(tmp_path)
    prepared = read_file("-")
    assert prepared.local(prepared.spec.mounts[0]) == tmp_path / "data"
    assert prepared.file == "standard input"


def test_a_problem_with_a_mount_names_its_place(tmp_path):
    path = tmp_path / "task.yml"
    path.write_text(TASK)
    problem = read_file(str(path)).problem(1, "gone", "look")
    assert str(problem) == f"{path}:5:3: files[1]: gone; look"
    assert str(Prepared(Task(), tmp_path).problem(0, "gone")) == "mounts[0]: gone"


def test_only_local_content_is_local(tmp_path):
    prepared = Prepared(Task(), tmp_path)
    assert prepared.local(HostPath("/a", "/b")) is None
    assert prepared.local(Repo(url="https://host/x")) is None
    assert prepared.local(Files("/a/../b", "x")) == Path("/b")


@pytest.mark.parametrize(
    ("content", "reason"), [(b"\xff\xfe\x00", "not UTF-8"), (None, "no such file")]
)
def test_a_file_that_cannot_be_read_is_bad_input(tmp_path, content, reason):
    path = tmp_path / "task.yml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=reason):
        read_file(str(path))


def test_volumes_of_run_begin_where_the_shell_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/u")
    assert _here(".:/code:ro") == f"{tmp_path}:/code:ro"
    assert _here("../x:/y") == f"{tmp_path.parent}/x:/y"
    assert _here("~/d:/d") == "/home/u/d:/d"
    assert _here("/abs:/d") == "/abs:/d"


def test_a_bare_variable_has_its_value_from_here(monkeypatch):
    monkeypatch.setenv("A", "1")
    monkeypatch.delenv("B", raising=False)
    assert _variables(["A", "C=x=y"]) == {"A": "1", "C": "x=y"}
    with pytest.raises(InvalidInput, match="B is not set"):
        _variables(["B"])
