from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from copynode import CopyNode
from moorage.data.copies import overlay


@pytest.fixture
def node(tmp_path: Path) -> Iterator[CopyNode]:
    yield CopyNode(tmp_path)
    for directory in (*tmp_path.glob("attempts/*/mounts/*"), *tmp_path.glob("unflushed/*/*")):
        overlay.leave(directory)
