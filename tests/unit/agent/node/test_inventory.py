from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from moorage.agent.node import inventory


def program(directory: Path, name: str, text: str = "#!/bin/sh\n") -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_resources_are_this_machine_s(tmp_path: Path) -> None:
    found = inventory.resources(tmp_path)
    assert found.cpus == len(os.sched_getaffinity(0))
    assert 0 < found.memory <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 2
    assert found.disk > 0
    if platform.machine() == "x86_64":
        assert found.arch == "x86"


def test_pythons_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "a", "python3.9")
    old = program(tmp_path / "b", "python3.10")
    program(tmp_path / "b", "python3.12-config")
    (tmp_path / "b" / "python3.13").write_text("not a program")
    path = f"{tmp_path / 'a'}:{tmp_path / 'missing'}:{tmp_path / 'b'}"
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert inventory.find_pythons(path) == ["3.9", "3.10", own]
    monkeypatch.setenv("PATH", path)
    assert inventory.find_python("3.10") == str(old)
    assert inventory.find_python("3.13") is None
    assert inventory.find_python(own) == os.path.realpath(sys.executable)


def test_a_pyenv_shim_is_not_an_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shims = tmp_path / "shims"
    for name in ("python3.9", "python3.10"):
        program(shims, name, "#!/bin/sh\necho whatever is set as global\n")
    for release in ("3.9.2", "3.9.18", "conda"):
        (tmp_path / "versions" / release).mkdir(parents=True)
        program(tmp_path / "versions" / release / "bin", "python3.9")
    monkeypatch.setenv("PATH", str(shims))
    assert inventory.find_python("3.9") == str(tmp_path / "versions/3.9.18/bin/python3.9")
    assert inventory.find_python("3.10") is None
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert inventory.find_pythons() == sorted({"3.9", own}, key=lambda v: int(v[2:]))


def test_shims_without_versions_are_a_directory_like_any_other(tmp_path: Path) -> None:
    program(tmp_path / "shims", "python3.7", "#!/bin/sh\n")
    (tmp_path / "versions").write_text("not what pyenv puts here")
    assert "3.7" in inventory.find_pythons(str(tmp_path / "shims"))
