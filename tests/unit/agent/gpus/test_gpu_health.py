from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gpustubs
from moorage.agent.gpus.discovery import discover
from moorage.agent.gpus.health import examine, judge, read_xids
from moorage.protocol.health import GpuHealth


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gpustubs.library(tmp_path_factory.mktemp("nvml"))


@pytest.mark.parametrize(
    ("condition", "state", "reason"),
    [
        ({"ecc": 0, "width": 16, "width_max": 16, "throttle": 0x1}, "healthy", ""),
        ({"ecc": 2}, "failure", "2 uncorrected ECC errors"),
        ({"remapped": (1, 1, 0, 1)}, "failure", "could not be remapped"),
        ({"remapped": (1, 1, 1, 0)}, "warning", "waits for a reset"),
        ({"retired_pending": 1}, "warning", "waits for a reset"),
        ({"width": 8, "width_max": 16}, "warning", "8 of 16 lanes"),
        ({"generation": 1, "generation_max": 5, "state": 0}, "warning", "generation 1 of 5"),
        ({"generation": 1, "generation_max": 5, "state": 8}, "healthy", ""),
        ({"links": [1, 0, 1]}, "warning", "1 of 3 NVLinks are down"),
        ({"links": [0, 0]}, "healthy", ""),  # no bridge, no peers
        ({"link_errors": 7}, "warning", "7 NVLink errors"),
        ({"throttle": 0x40}, "warning", "heat"),
        ({"ecc": 1, "throttle": 0x20}, "failure", "; slowed down"),
        (None, "healthy", ""),
    ],
)
def test_each_sign_is_judged(condition: Any, state: str, reason: str) -> None:
    found = judge({"condition": condition})
    assert found[0] == state
    assert reason in found[1]


def test_a_lost_gpu_is_a_failure() -> None:
    assert judge({"lost": "GPU is lost"}) == ("failure", "the driver has lost it (GPU is lost)")


def test_the_kernel_s_log_tells_of_broken_hardware_only() -> None:
    lines = [
        "4,1,1,-;NVRM: Xid (PCI:0000:18:00): 79, pid='<unknown>', GPU has fallen off the bus.",
        "4,2,2,-;NVRM: Xid (PCI:0000:18:00): 13, Graphics SM Warp Exception",
        "4,3,3,-;NVRM: Xid (PCI:0000:19:00.0): 94, Contained ECC error",
        "4,4,4,-;something else",
    ]
    found = read_xids(lines)
    assert found == {"0000:18:00.0": (79,), "0000:19:00.0": (94,)}
    assert judge({}, (79, 79)) == ("failure", "XID 79: fell off the bus")


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        ("", []),
        (
            "sick",
            [GpuHealth(1, "failure", "3 uncorrected ECC errors since the driver was loaded")],
        ),
        ("narrow", [GpuHealth(0, "warning", "PCIe has 4 of 16 lanes")]),
        ("lost", [GpuHealth(0, "failure", "the driver has lost it (GPU is lost)")]),
    ],
)
def test_the_library_is_asked(
    mode: str, found: list[GpuHealth], nvml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml))
    devices = discover(tmp_path)
    monkeypatch.setenv("FAKE_NVML", mode)
    assert examine(devices, 20) == found
