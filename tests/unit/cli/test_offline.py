"""How the end of the process that works on a store is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from moorage.cli import offline
from moorage.errors import MoorageError
from moorage.protocol.api import CheckReply


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("kill -9 $$", r"was killed \(SIGKILL\) before it was done"),
        ("echo one >&2; echo two >&2; exit 1", "^two$"),
    ],
)
def test_how_it_ended(
    script: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(MoorageError, match=told):
        offline.call(tmp_path, "check", CheckReply, lambda _: None)
