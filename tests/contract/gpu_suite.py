"""What every way of learning of GPUs promises. Each vendor's runs all of it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from gpustubs import program
from moorage.agent.gpus.base import Unreadable, Vendor

PATIENT = 60.0


class DiscoverySuite:
    """Subclasses say what is asked, and put a stand-in with two GPUs where it is found."""

    vendor: Vendor
    tool: str

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
        self.bin, self.patch = tmp_path / "bin", monkeypatch

    def install(self) -> None:
        raise NotImplementedError

    def break_it(self, how: str) -> None:
        """`fail`, `hang` or `crash` (what it prints makes no sense)."""
        text = {
            "fail": "import sys\nprint('the driver is gone', file=sys.stderr)\nsys.exit(9)\n",
            "hang": "import signal\nwhile True: signal.pause()\n",
            "crash": "print('Traceback')\n",
        }
        program(self.bin, self.tool, text[how])

    def test_absent(self) -> None:
        assert not self.vendor.present()

    def test_two_gpus(self) -> None:
        self.install()
        assert self.vendor.present()
        found = self.vendor.find(PATIENT)
        assert [gpu.number for gpu in found] == [0, 1]
        for gpu in found:
            assert gpu.vendor == self.vendor.name
            assert gpu.name
            assert gpu.memory >= 8 << 30
            assert gpu.driver
            assert not gpu.slice
        assert [gpu.pci for gpu in found] == ["0000:18:00.0", "0000:19:00.0"]
        assert len({gpu.identity for gpu in found}) == 2

    def test_asking_twice_changes_nothing(self) -> None:
        self.install()
        assert self.vendor.find(PATIENT) == self.vendor.find(PATIENT)

    def test_failure_has_a_reason_in_one_line(self) -> None:
        self.install()
        self.break_it("fail")
        with pytest.raises(Unreadable, match=r"failed with exit code \d+: .*[Dd]river") as error:
            self.vendor.find(PATIENT)
        assert "\n" not in str(error.value)

    def test_the_deadline_holds(self) -> None:
        self.install()
        self.break_it("hang")
        began = time.monotonic()
        with pytest.raises(Unreadable, match=r"did not answer within 0.3 s"):
            self.vendor.find(0.3)
        assert time.monotonic() - began < PATIENT / 2

    def test_nonsense(self) -> None:
        self.install()
        self.break_it("crash")
        found: object = []
        with suppress(Unreadable):
            found = self.vendor.find(PATIENT)
        assert found == []
