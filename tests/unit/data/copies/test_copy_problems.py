"""What is said before a bucket is copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.data.copies import mode
from moorage.specs.mounts import Bucket


def test_packages_that_are_fetched_with_the_first_bucket_are_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = mode.Copied(tmp_path, tmp_path / "unflushed")
    bucket = Bucket("/data", bucket="b", mode="copy")
    monkeypatch.setattr(mode, "find_spec", lambda _name: None)
    [why], _ = copied.problems(bucket)
    assert why.startswith("/data: the package obstore is not installed")
    monkeypatch.setattr(mode, "awaited", lambda: "digest")
    assert copied.problems(bucket) == ([], [])
