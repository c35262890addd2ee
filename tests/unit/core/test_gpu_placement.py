"""What users write of GPUs, against what agents find: mixed models, slices, other vendors."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpustubs
from moorage.agent.gpus.discovery import discover
from moorage.core.shape import shape_of
from moorage.protocol.agent import GpuDevice
from moorage.specs.load import load

GB = 1024**3
MIXED = [
    GpuDevice(0, "nvidia", "NVIDIA A100-SXM4-40GB", 40 * GB, 8.0),
    GpuDevice(1, "nvidia", "NVIDIA A100-SXM4-80GB", 80 * GB, 8.0),
    GpuDevice(2, "nvidia", "NVIDIA A100-SXM4-80GB", 80 * GB, 8.0),
    GpuDevice(3, "nvidia", "NVIDIA L4", 24 * GB, 8.9),
    GpuDevice(4, "amd", "AMD Instinct MI300X", 192 * GB),
    GpuDevice(5, "amd", "AMD Instinct MI300X", 192 * GB),
    GpuDevice(6, "nvidia", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", 5 * GB, 8.0),
    GpuDevice(7, "nvidia", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", 20 * GB, 8.0),
    GpuDevice(8, "nvidia", "NVIDIA GeForce RTX 4090", 24 * GB, 8.9),
]


def picked(written: str, devices: list[GpuDevice] = MIXED) -> tuple[int, ...] | None:
    text = f"type: task\ncommands: [x]\nresources: {{gpu: {written}}}\n"
    shape = shape_of(load(text, file="t.yml", environ={}).spec.resources)
    return shape.gpu.pick(devices)


@pytest.mark.parametrize(
    ("written", "indexes"),
    [
        ("A100:1", (0,)),
        ("A100:2", (1, 2)),
        ("'A100:80GB:1'", (1,)),
        ("'A100:80GB..:2..'", (1, 2)),
        ("'A100:3'", None),
        ("RTX4090", (8,)),
        ("{name: RTX 4090}", (8,)),
        ("{name: RTX4090D}", None),
        ("{name: [409, RTX409]}", None),
        ("'L4,A100:1'", (3,)),
        ("'nvidia:32GB..:2'", (1, 2)),
        ("'amd:1'", (4,)),
        ("'amd:MI300X:2'", (4, 5)),
        ("'amd:A100:1'", None),
        ("'100GB..:1'", (4,)),
        ("'..30GB:1'", (6,)),
        ("'10GB..30GB:1'", (7,)),
        ("{name: [A100, L4], compute_capability: 8.6..}", (3,)),
        ("{name: A100, total_memory: 100GB..}", (1, 2)),
        ("{name: A100, count: 1, total_memory: 100GB..}", None),
        ("{vendor: nvidia, compute_capability: 9.0..}", None),
        ("{vendor: amd, count: 1.., total_memory: ..200GB}", (4,)),
        ("{memory: 40GB..80GB, count: 2}", (1, 2)),
    ],
)
def test_of_mixed_models(written: str, indexes: tuple[int, ...] | None) -> None:
    assert picked(written) == indexes


@pytest.mark.parametrize(
    ("written", "indexes"),
    [
        ("1", (6,)),
        ("{name: 1g.5gb}", (6,)),
        ("{name: 3g.20gb}", (7,)),
        ("MIG:1", (6,)),
        ("'MIG:20GB..:1'", (7,)),
        ("A100-SXM4-40GB:1", (0,)),
        ("{name: 1g.5gb, count: 2}", None),
    ],
)
def test_a_slice_goes_by_its_own_name_and_not_by_the_model_s(
    written: str, indexes: tuple[int, ...] | None
) -> None:
    assert picked(written) == indexes


@pytest.mark.parametrize(
    ("written", "indexes"),
    [
        ("H100:1", (2,)),
        ("H100:2", None),
        ("1", (0,)),
        ("2", (0, 1)),
        ("{name: 3g.40gb}", (0,)),
        ("'nvidia:80GB:1'", (2,)),
        ("{name: H100, compute_capability: 9.0, count: 1..4}", (2,)),
        ("{total_memory: 80GB..}", (0, 1)),
        ("'amd:1'", None),
    ],
)
def test_of_what_a_driver_tells(
    written: str,
    indexes: tuple[int, ...] | None,
    nvml: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml))
    monkeypatch.setenv("FAKE_NVML", "mig")
    assert picked(written, discover(tmp_path).reported()) == indexes


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gpustubs.library(tmp_path_factory.mktemp("nvml"))
