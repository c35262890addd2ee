from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from moorage.data.objects.bucket import PART, part_size
from moorage.data.transfer import etags


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def test_plain_md5(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"hello")
    assert etags.same_content(str(path), 5, f'"{md5(b"hello")}"') is True
    assert etags.same_content(str(path), 5, md5(b"other")) is False


def test_the_etag_of_parts_whatever_usual_size_they_had(tmp_path: Path) -> None:
    path = tmp_path / "f"
    data = bytes(range(256)) * 4096 * 17  # 17 MiB
    path.write_bytes(data)
    for part in (PART, 5 * 2**20, 16 * 2**20):
        digests = [
            hashlib.md5(data[n : n + part], usedforsecurity=False).digest()
            for n in range(0, len(data), part)
        ]
        etag = f'"{md5(b"".join(digests))}-{len(digests)}"'
        assert etags.same_content(str(path), len(data), etag) is True
    one = md5(hashlib.md5(data, usedforsecurity=False).digest())
    assert etags.same_content(str(path), len(data), f"{one}-1") is True
    assert etags.same_content(str(path), len(data), f"{one}-3") is None


@pytest.mark.parametrize("etag", ["", '"0x8DC1B2"', "abc", '"inode-time"'])
def test_etags_that_tell_nothing(tmp_path: Path, etag: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    assert not etags.tells_content(etag)
    assert etags.same_content(str(path), 1, etag) is None


def test_parts_are_bounded_in_number_and_grow_with_the_object() -> None:
    assert part_size(0) == part_size(PART * 10_000) == PART
    for size in (100 * 2**30, 5 * 2**40):
        assert -(-size // part_size(size)) <= 10_000
        assert part_size(size) % 2**20 == 0
