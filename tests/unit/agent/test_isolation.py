from __future__ import annotations

import os
from pathlib import Path

from moorage.agent import isolation


def test_what_is_not_in_force_has_a_reason(tmp_path: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    found = isolation.probe(tmp_path)
    assert found.user
    if os.geteuid() != 0:
        assert found.cgroup is not None
        assert found.cgroup.startswith("moorage runs without root")
    assert found.mounts is None or "mount namespaces" in found.mounts
    assert Path("/proc/self/mountinfo").read_text() == mounts
