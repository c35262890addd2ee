"""A server over a directory, and trees to send to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.data.blobs import BlobCache
from moorage.data.scan import scan
from moorage.data.testing import DirectoryServer
from moorage.data.upload import Uploader
from moorage.ids import Digest


class Harbour:
    """A server with an uploader before it and a node's cache behind it."""

    def __init__(self, base: Path) -> None:
        self.server = DirectoryServer(base / "server")
        self.uploader = Uploader(self.server)
        self.cache = BlobCache(base / "cache", self.server.fetch)

    def sent(self, path: Path) -> Digest:
        """Upload a path; its tree."""
        scanned = scan(path)
        self.uploader.upload([scanned])
        return scanned.tree


@pytest.fixture
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Harbour:
    return Harbour(tmp_path_factory.mktemp("harbour"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small directory with everything that a tree may hold."""
    root = tmp_path / "project"
    (root / "pkg/deep/empty").mkdir(parents=True)
    (root / "train.py").write_text("print('hi')\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "pkg/a.b").write_bytes(b"")
    (root / "pkg/deep/data.bin").write_bytes(bytes(range(256)) * 9000)
    (root / "pkg/link").symlink_to("../train.py")
    (root / "dangling").symlink_to("nowhere")
    (root / "pkg/deep").chmod(0o555)
    return root
