from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from moorage.agent.keeper.cgroup import Cgroups, hierarchies

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/my\\040memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:39 / /elsewhere rw,relatime - cgroup2 cgroup2 rw
"""


def test_hierarchies_are_read_not_guessed() -> None:
    found = hierarchies(HYBRID)
    assert found[""] == "/sys/fs/cgroup/unified"
    assert found["cpu"] == found["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert found["memory"] == "/sys/fs/cgroup/my memory"
    assert "pids" not in found


def test_no_hierarchy_is_said() -> None:
    with pytest.raises(RuntimeError, match="no cgroup hierarchy with the memory controller"):
        Cgroups("x", "")


@pytest.mark.root
@pytest.mark.parametrize("unified", [True, False])
def test_a_group_holds_limits_counts_and_dies(unified: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may make control groups")
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mountinfo = "\n".join(line for line in lines if unified or " cgroup2 " not in line)
    name = f"test-{os.getpid()}-{unified}"
    try:
        cgroups = Cgroups(name, mountinfo)
    except (OSError, RuntimeError) as error:
        pytest.skip(f"this machine has no such control groups: {error}")
    cgroups.remove_idle()
    group = cgroups.make("1.1.0", {"memory": 64 << 20, "cpus": 0.5, "pids": 50})
    enter = "; ".join(f"echo 0 > {path}/cgroup.procs" for path in group.directories)
    process = subprocess.Popen(
        ["sh", "-c", f"{enter}; trap '' TERM; (setsid sleep 1000 &); echo; sleep 1000"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
    assert group.populated()
    assert process.pid in group.processes()
    assert not group.remove()
    while group.populated():
        group.kill()
        process.wait(60)
    assert process.returncode == -signal.SIGKILL
    assert (group.memory_peak() or 1) > 0
    assert group.oom_kills() == 0
    assert group.cpu_seconds() is not None
    assert group.remove()
    assert group.remove()
    assert not group.populated()
    cgroups.remove_idle()
    assert not any(Path(path).parent.exists() for path in group.directories)
