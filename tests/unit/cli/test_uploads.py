"""What a run brings along, looked at before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from moorage.cli.prepare import read_file
from moorage.cli.transport import Transport
from moorage.cli.uploads import gather


def test_what_is_to_go_into_a_bucket_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    file = tmp_path / "task.yml"
    file.write_text(
        "type: task\ncommands: [a]\nfile_mounts:\n  /a: {name: buck, source: ./gone}\n"
        "  /b: {name: two, source: [./here, ./task.yml, ./dangling]}\n"
    )
    unused = cast(Transport, None)  # no file of these is sent to a server
    gathered = gather(unused, read_file(str(file)), tmp_path / "cache")
    fix = "correct the path (paths are relative to the directory of the file), or make it"
    assert [str(problem) for problem in gathered.problems] == [
        f"{file}:4:7: file_mounts./a: {tmp_path}/gone does not exist; {fix}",
        f"{file}:5:7: file_mounts./b: {tmp_path}/dangling is neither a file nor a directory; "
        f"{fix}",
    ]
    assert gathered.broken == {0, 1}


def test_what_is_uploaded_must_be_there_and_be_what_it_is_for(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("")
    file = tmp_path / "sky.yaml"
    file.write_text("workdir: ./one.py\nrun: a\n")
    unused = cast(Transport, None)
    gathered = gather(unused, read_file(str(file)), tmp_path / "cache")
    assert [str(problem) for problem in gathered.problems] == [
        f"{file}:1:10: workdir: {tmp_path}/one.py is a file, and is to be the working directory; "
        "name a directory"
    ]
