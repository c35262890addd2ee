from __future__ import annotations

from pathlib import Path

import pytest

import gpustubs
from moorage.agent.gpus import devices as module
from moorage.agent.gpus.base import Gpu, pci_address
from moorage.agent.gpus.devices import Devices, rules
from moorage.agent.gpus.discovery import discover


def gpu(vendor: str, number: int, **fields: object) -> Gpu:
    known = {"name": "X", "memory": 1, **fields}
    return Gpu(vendor=vendor, number=number, **known)  # type: ignore[arg-type]  # **fields


NVIDIA = Devices(
    {
        0: gpu("nvidia", 0, uuid="MIG-a", slice="1/0", nodes=("/dev/nvidia0", "/dev/cap1")),
        1: gpu("nvidia", 0, uuid="MIG-b", slice="2/0", nodes=("/dev/nvidia0", "/dev/cap2")),
        2: gpu("nvidia", 1, uuid="GPU-c", nodes=("/dev/nvidia1",)),
        3: gpu("nvidia", 2, nodes=("/dev/nvidia2",)),
    }
)


def test_nothing_is_shown_by_default() -> None:
    assert Devices().variables([]) == {
        "CUDA_VISIBLE_DEVICES": "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "NVIDIA_VISIBLE_DEVICES": "void",
    }


def test_gpus_and_slices_are_named_by_uuid_where_they_have_one() -> None:
    assert NVIDIA.variables([3, 1, 2])["CUDA_VISIBLE_DEVICES"] == "MIG-b,GPU-c,2"
    assert NVIDIA.variables([0])["NVIDIA_VISIBLE_DEVICES"] == "MIG-a"


def test_amd_counts_twice() -> None:
    node = Devices({number: gpu("amd", number) for number in range(4)})
    assert node.variables([2, 3]) == {"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "0,1"}


def test_each_vendor_has_its_own_numbers() -> None:
    node = Devices({0: gpu("intel", 0), 1: gpu("intel", 1), 2: gpu("tenstorrent", 0)})
    assert node.variables([1, 2]) == {"ZE_AFFINITY_MASK": "1", "TT_VISIBLE_DEVICES": "0"}


def test_a_slice_is_reached_through_its_gpu_and_by_nobody_else() -> None:
    assert NVIDIA.granted([0])[-2:] == ["/dev/nvidia0", "/dev/cap1"]
    assert "/dev/nvidiactl" in NVIDIA.granted([0])
    assert NVIDIA.denied([0]) == ["/dev/cap2", "/dev/nvidia1", "/dev/nvidia2"]
    assert NVIDIA.granted([]) == []
    assert len(NVIDIA.denied([])) == 5


def test_graphics_nodes_are_found_by_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("card1", "renderD129", "controlD65"):
        (tmp_path / "0000:18:00.0" / "drm" / name).mkdir(parents=True)
    monkeypatch.setattr(module, "_PCI", str(tmp_path))
    node = Devices({0: gpu("amd", 0, pci="0000:18:00.0"), 1: gpu("amd", 1, pci="0000:19:00.0")})
    assert node.granted([0]) == ["/dev/kfd", "/dev/dri/card1", "/dev/dri/renderD129"]
    assert node.denied([1]) == ["/dev/dri/card1", "/dev/dri/renderD129"]


def test_rules_name_devices_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    paths = ["/dev/null", str(tmp_path / "file"), str(tmp_path / "none")]
    assert rules(paths) == ["c 1:3"]


def test_pci_addresses_are_the_kernel_s() -> None:
    assert pci_address("00000000:3B:00.0") == "0000:3b:00.0"
    assert pci_address("0000:3b:00.0") == "0000:3b:00.0"
    assert pci_address("") == ""


def smi(directory: Path, *uuids: str) -> None:
    rows = [
        (str(n), "A100", "40960", uuid, f"00000000:{n + 1:02X}:00.0", "550", "8.0")
        for n, uuid in enumerate(uuids)
    ]
    gpustubs.nvidia_smi(directory, rows, gpustubs.SMI_FIELDS)


def test_numbers_stay_when_a_gpu_falls_off_the_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    smi(tmp_path / "bin", "GPU-a", "GPU-b", "GPU-c")
    first = discover(tmp_path).reported()
    assert [(one.index, one.uuid) for one in first] == [(0, "GPU-a"), (1, "GPU-b"), (2, "GPU-c")]
    smi(tmp_path / "bin", "GPU-a", "GPU-c", "GPU-d")
    later = discover(tmp_path)
    assert [(one.index, one.uuid) for one in later.reported()] == [
        (0, "GPU-a"),
        (2, "GPU-c"),
        (3, "GPU-d"),
    ]
    assert later.variables([2])["CUDA_VISIBLE_DEVICES"] == "GPU-c"


def test_a_tool_that_fails_is_a_note_and_others_are_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    smi(tmp_path / "bin", "GPU-a")
    gpustubs.program(tmp_path / "bin", "amd-smi", "import sys\nsys.exit('no driver')\n")
    found = discover(tmp_path)
    assert [one.uuid for one in found.reported()] == ["GPU-a"]
    assert found.notes == ("GPUs (amd): amd-smi failed with exit code 1: no driver",)


def test_no_tool_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert discover(tmp_path) == Devices()
