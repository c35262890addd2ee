"""Agents with a scripted server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from moorage.protocol.agent import Launch
from system.agent_harness import World, agent_world, launch


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[World]]:
    """`async with world(*options) as w`: a server, an agent, and nothing left afterwards."""
    return lambda *options: agent_world(tmp_path, *options)


@pytest.fixture(name="launch")
def launch_fixture() -> Callable[..., Launch]:
    return launch
