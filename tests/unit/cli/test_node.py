from __future__ import annotations

import pytest

from moorage.cli.node import describe, listing
from moorage.cli.render import Style
from moorage.protocol.agent import GpuDevice, Isolation, NodeResources
from moorage.protocol.api import NodeView
from moorage.protocol.health import GpuHealth

GPU = GpuDevice(0, "nvidia", "H100", 80 << 30, 9.0, "GPU-a", "0000:18:00.0", "550.1")


def view(**fields: object) -> NodeView:
    has = NodeResources(8, "x86", 1 << 30, 1 << 30, [GPU], ["GPUs (amd): amd-smi failed"])
    isolation = Isolation(user="root", devices="no root")
    shape = {"id": 1, "name": "box", "state": "up", "version": "1", **fields}
    return NodeView(resources=has, isolation=isolation, **shape)


def test_gpus_are_shown_with_what_is_wrong_with_them() -> None:
    lines = describe(
        view(health="GPU 0: broken", gpu_health=[GpuHealth(0, "failure", "broken")]), 0
    )
    assert "state     unhealthy; agent 1" in lines
    assert "health    failure: GPU 0: broken" in lines
    [shown] = [line for line in lines if " 0: " in line and "H100" in line]
    assert shown.strip().startswith("0: nvidia H100, ")
    assert shown.endswith("0000:18:00.0, GPU-a, driver 550.1; failure: broken")
    assert "          GPUs (amd): amd-smi failed" in lines
    assert "isolation without GPUs apart (devices): no root" in lines


@pytest.mark.parametrize(
    ("width", "head"),
    [
        (60, "NAME STATE CPUS MEMORY GPUS JOBS SEEN"),
        (80, "NAME FLEET STATE CPUS MEMORY GPUS JOBS SEEN"),
        (120, "NAME FLEET HOST STATE CPUS MEMORY GPUS JOBS ISOLATION SEEN"),
    ],
)
def test_a_narrow_terminal_gets_names_and_states_whole(width: int, head: str) -> None:
    one = view(name="cluster-gpu-14", fleet="cluster", hostname="gpu14.example.org", warning="hot")
    lines = listing([one], Style(colours=False, width=width), 0)
    assert lines[0].split() == head.split()
    assert max(map(len, lines)) <= width
    assert lines[1].split()[0] == "cluster-gpu-14"
    assert "  warning  " in lines[1]


def test_a_warning_is_a_state_of_its_own() -> None:
    lines = describe(view(warning="hot"), 0)
    assert "state     warning; agent 1" in lines
    assert "health    warning: hot" in lines
    assert not any(line.startswith("health") for line in describe(view(), 0))
