from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moorage.agent.node import isolation


def test_what_is_not_in_force_has_a_reason(tmp_path: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    found = isolation.probe(tmp_path)
    assert found.user
    if os.geteuid() != 0:
        assert found.cgroup is not None
        assert found.cgroup.startswith("moorage runs without root")
    assert found.mounts is None or "mount namespaces" in found.mounts
    assert Path("/proc/self/mountinfo").read_text() == mounts


NO_MORE = """
import os
from moorage.agent.sandbox import mounting
mounting.own_user_namespace()
with open("/proc/sys/user/max_user_namespaces", "w") as limit:  # of this namespace only
    limit.write("0")
try:
    mounting.own_user_namespace()
except mounting.MountError as error:
    print(error)
"""


def test_a_limit_on_namespaces_is_told_from_a_full_disk() -> None:
    done = subprocess.run([sys.executable, "-c", NO_MORE], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no user namespaces here: {done.stderr.splitlines()[-1]}")
    assert done.stdout == (
        "the kernel refuses a new namespace: the limit on their number is reached\n"
    )
