from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moorage.agent.keeper.cgroup import Cgroups
from moorage.agent.keeper.main import group_name
from moorage.agent.node import isolation
from moorage.agent.sandbox.roots import USUAL


def at_usual_places() -> list[str]:
    """Mounts where one could have been left; others come and go with whatever else runs here."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4] in {"/", *USUAL}]


def test_what_is_not_in_force_has_a_reason(tmp_path: Path) -> None:
    mounts = at_usual_places()
    found = isolation.probe(tmp_path)
    assert found.user
    if os.geteuid() != 0:
        assert found.cgroup is not None
        assert found.cgroup.startswith("moorage runs without root")
    assert found.mounts is None or "mount namespaces" in found.mounts
    assert at_usual_places() == mounts


@pytest.mark.root
def test_what_an_agent_left_that_was_killed_while_it_tried_is_no_obstacle(tmp_path: Path) -> None:
    if (why := isolation.probe(tmp_path).cgroup) is not None:
        pytest.skip(why)
    left = Cgroups(group_name(str(tmp_path))).make(isolation.PROBE, {"memory": 1 << 30, "pids": 9})
    assert isolation.probe(tmp_path).cgroup is None
    assert not any(Path(path).parent.exists() for path in left.directories)


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
