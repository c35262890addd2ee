"""Where `durable: fsync` cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.agent import durable
from moorage.agent.fsyncs import calls
from moorage.specs.mounts import Bucket, Files

PLAIN = Bucket("/a", "s3", "b", mode="cached")
HELD = Bucket("/b", "s3", "b", mode="cached", durable="fsync")


def test_only_those_that_ask() -> None:
    assert durable.held([Files("x", "y"), HELD, PLAIN, HELD], Path("/n")) == [
        "/n/mounts/1",
        "/n/mounts/3",
    ]
    assert durable.problem(PLAIN) == ""
    assert durable.engine_problem("podman", [PLAIN]) == ""
    assert "engines: [moorage]" in durable.engine_problem("podman", [PLAIN, HELD])


def test_a_node_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "why_not", lambda: "why")
    assert durable.problem(HELD).startswith(
        "/b: fsync cannot be made to wait for the upload here: why;"
    )
    assert durable.problem(PLAIN) == ""
