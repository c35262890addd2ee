from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import subprocess, sys

def test_it(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "left-by-a-test", tmp_path], check=True)
    print("mounted", tmp_path, file=sys.__stderr__, flush=True)
    sys.stdin.read()
"""


@pytest.mark.root
def test_a_suite_that_is_killed_leaves_no_mount(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").touch()
    command = [sys.executable, "-m", "pytest", "-s", "-p", "mounts", tmp_path / "test_suite.py"]
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command, env=os.environ | paths, **pipes) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert select.select([process.stderr], [], [], 60)[0], "it is stuck"
        word, place = process.stderr.readline().decode().split()
        assert word == "mounted"
        inside = Path(f"/proc/{process.pid}/mountinfo").read_text()
        assert place in inside
        assert place not in Path("/proc/self/mountinfo").read_text()
        process.send_signal(signal.SIGKILL)


def test_this_very_suite_does_so(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.has_plugin("mounts")
