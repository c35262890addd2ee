from __future__ import annotations

import os
from pathlib import Path

import pytest

from moorage.data.transfer import partfile
from moorage.data.transfer.listing import listing
from moorage.data.transfer.partfile import PART, InUse, PartFile
from moorage.data.transfer.places import Local

SIZE = 3 * PART + 10


def begun(path: Path, identity: str = "v1", size: int = SIZE) -> PartFile:
    return PartFile(str(path), size, identity)


def test_it_goes_on_where_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "big"
    first = begun(path)
    assert [number for number, _, _ in first.missing()] == [0, 1, 2, 3]
    os.pwrite(first.fd, b"b" * PART, PART)
    first.arrived_now(1)
    first.leave()
    assert not path.exists()
    second = begun(path)
    assert [number for number, _, _ in second.missing()] == [0, 2, 3]
    assert second.arrived == PART
    for number, start, end in list(second.missing()):
        os.pwrite(second.fd, b"x" * (end - start), start)
        second.arrived_now(number)
    assert second.whole
    second.finish(1_000_000_000.25)
    assert path.stat().st_size == SIZE
    assert path.stat().st_mtime == 1_000_000_000.25
    with path.open("rb") as file:
        assert file.read(1) == b"x"
        file.seek(PART)
        assert file.read(2) == b"bb"
    assert os.listdir(tmp_path) == ["big"]


@pytest.mark.parametrize(("identity", "size"), [("v2", SIZE), ("v1", SIZE + 1), ("v1", PART)])
def test_another_content_begins_anew(tmp_path: Path, identity: str, size: int) -> None:
    first = begun(tmp_path / "big")
    first.arrived_now(0)
    first.leave()
    second = begun(tmp_path / "big", identity, size)
    assert second.arrived == 0
    second.forget()
    assert os.listdir(tmp_path) == []


def test_what_was_written_before_the_machine_started_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = begun(tmp_path / "big")
    first.arrived_now(0)
    first.leave()
    boot = tmp_path / "boot"
    boot.write_text("another start of the machine\n")
    monkeypatch.setattr(partfile, "_BOOT", str(boot))
    second = begun(tmp_path / "big")
    assert second.arrived == 0
    second.forget()


def test_only_one_transfer_at_a_time(tmp_path: Path) -> None:
    first = begun(tmp_path / "big")
    with pytest.raises(InUse, match="another transfer"):
        begun(tmp_path / "big")
    first.leave()
    begun(tmp_path / "big").forget()


def test_it_is_not_listed(tmp_path: Path) -> None:
    begun(tmp_path / "big").leave()
    assert listing(Local(str(tmp_path))).entries == {}


def test_a_name_of_the_greatest_length(tmp_path: Path) -> None:
    begun(tmp_path / ("x" * 255)).leave()
