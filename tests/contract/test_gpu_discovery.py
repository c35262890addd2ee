"""The contract of GPU discovery, kept by each vendor's module against stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpustubs
from contract.gpu_suite import PATIENT, DiscoverySuite
from moorage.agent.gpus.amd import Amd
from moorage.agent.gpus.base import Gpu
from moorage.agent.gpus.intel import Intel
from moorage.agent.gpus.nvidia import Library, Tool
from moorage.agent.gpus.tenstorrent import Tenstorrent

GIB = 1 << 30


@pytest.fixture(scope="session")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gpustubs.library(tmp_path_factory.mktemp("nvml"))


class TestLibrary(DiscoverySuite):
    """NVIDIA's library, by a process of its own."""

    vendor = Library()

    @pytest.fixture(autouse=True)
    def _library(self, nvml: Path) -> None:
        self.nvml = nvml

    def install(self) -> None:
        self.patch.setenv("LD_LIBRARY_PATH", str(self.nvml))

    def break_it(self, how: str) -> None:
        self.patch.setenv("FAKE_NVML", how)

    def test_what_is_told(self) -> None:
        self.install()
        assert self.vendor.find(PATIENT)[1] == Gpu(
            vendor="nvidia",
            number=1,
            name="NVIDIA H100 80GB HBM3",
            memory=80 * GIB,
            uuid="GPU-1",
            pci="0000:19:00.0",
            compute_capability=9.0,
            driver="550.54.15",
            nodes=("/dev/nvidia1",),
        )

    def test_slices_take_the_place_of_their_gpu(self) -> None:
        self.install()
        self.patch.setenv("FAKE_NVML", "mig")
        found = self.vendor.find(PATIENT)
        assert [gpu.uuid for gpu in found] == ["MIG-0-0", "MIG-0-1", "GPU-1"]
        assert found[0].name.endswith("MIG 3g.40gb")
        assert found[0].memory == 40 * GIB
        assert found[0].compute_capability == 9.0
        assert [gpu.slice for gpu in found] == ["1/0", "2/0", ""]

    def test_a_gpu_that_fell_off_the_bus_is_left_out(self) -> None:
        self.install()
        self.patch.setenv("FAKE_NVML", "lost")
        assert [gpu.uuid for gpu in self.vendor.find(PATIENT)] == ["GPU-1"]

    def test_no_gpus(self) -> None:
        self.install()
        self.patch.setenv("FAKE_NVML", "none")
        assert self.vendor.find(PATIENT) == []


class TestNvidiaSmi(DiscoverySuite):
    """The fallback."""

    vendor, tool = Tool(), "nvidia-smi"
    rows = (
        ("0", "NVIDIA A100", "81920", "GPU-a", "00000000:18:00.0", "550.1", "8.0"),
        ("1", "Tesla K80", "11441", "GPU-b", "00000000:19:00.0", "550.1", "[N/A]"),
    )

    def install(self) -> None:
        gpustubs.nvidia_smi(self.bin, list(self.rows), gpustubs.SMI_FIELDS)

    def test_an_old_driver_is_asked_again(self) -> None:
        gpustubs.nvidia_smi(self.bin, list(self.rows), gpustubs.SMI_FIELDS[:-1])
        found = self.vendor.find(PATIENT)
        assert [(gpu.uuid, gpu.compute_capability) for gpu in found] == [
            ("GPU-a", 0),
            ("GPU-b", 0),
        ]

    def test_lines_that_make_no_sense_are_left_out(self) -> None:
        lost = ("2", "[Unknown Error]", "[N/A]", "GPU-c", "x", "550.1", "[N/A]")
        gpustubs.nvidia_smi(self.bin, [*self.rows, lost], gpustubs.SMI_FIELDS)
        found = self.vendor.find(PATIENT)
        assert [(gpu.number, gpu.compute_capability) for gpu in found] == [(0, 8.0), (1, 0.0)]


def amd_row(number: int, size: object) -> dict[str, object]:
    return {
        "gpu": number,
        "asic": {"market_name": "AMD Instinct MI300X", "asic_serial": "0x5D"},
        "bus": {"bdf": f"0000:{0x18 + number:x}:00.0"},
        "driver": {"name": "amdgpu", "version": "6.8.5"},
        "vram": {"type": "HBM3", "size": size},
    }


class TestAmd(DiscoverySuite):
    """`amd-smi`, as ROCm 6 prints it."""

    vendor, tool = Amd(), "amd-smi"

    def rows(self) -> list[dict[str, object]]:
        return [amd_row(0, {"value": 196592, "unit": "MB"}), amd_row(1, "196592 MB")]

    def install(self) -> None:
        gpustubs.printing(self.bin, self.tool, {"static --json": self.rows()})


class TestAmdSeven(TestAmd):
    """As ROCm 7 prints it."""

    def install(self) -> None:
        gpustubs.printing(self.bin, self.tool, {"static --json": {"gpu_data": self.rows()}})


class TestIntel(DiscoverySuite):
    """`xpu-smi`: one question for the list, one for each device."""

    vendor, tool = Intel(), "xpu-smi"

    def install(self) -> None:
        rows: list[dict[str, object]] = [
            {
                "device_id": number,
                "device_name": "Intel(R) Data Center GPU Max 1550",
                "device_type": "GPU",
                "device_function_type": "physical",
                "pci_bdf_address": f"0000:{0x18 + number:x}:00.0",
                "uuid": f"0000-{number}",
            }
            for number in (0, 1)
        ]
        virtual = rows[0] | {"device_id": 2, "device_function_type": "virtual"}
        answers: dict[str, object] = {"discovery -j": {"device_list": [*rows, virtual]}}
        more = {"memory_physical_size_byte": str(64 * GIB), "driver_version": "I915_23"}
        for row in rows:
            answers[f"discovery -d {row['device_id']} -j"] = row | more
        gpustubs.printing(self.bin, self.tool, answers)


class TestTenstorrent(DiscoverySuite):
    """`tt-smi`: a board with two chips is one device with the memory of both."""

    vendor, tool = Tenstorrent(), "tt-smi"

    def install(self) -> None:
        boards = [
            ("0000:18:00.0", "n300 L", "1"),
            ("N/A", "n300 R", "1"),
            ("0000:19:00.0", "n150", "2"),
        ]
        rows = [
            {"board_info": {"bus_id": bus, "board_type": kind, "board_id": serial}}
            for bus, kind, serial in boards
        ]
        said = {"host_info": {"Driver": "TT-KMD 1.29"}, "device_info": rows}
        gpustubs.printing(self.bin, self.tool, {"-s": said})

    def test_memory_by_board(self) -> None:
        self.install()
        assert [gpu.memory for gpu in self.vendor.find(PATIENT)] == [24 * GIB, 12 * GIB]
