"""The way to a port of a job."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.agent.keeper import family
from moorage.agent.uplink.jobports import connect
from moorage.errors import Conflict


@pytest.fixture
def port() -> Iterator[int]:
    """Somebody listens there, on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def reached(directory: Path, port: int, own: bool) -> bool:
    async def main() -> bool:
        _, writer = await connect(directory, port, own)
        writer.close()
        await writer.wait_closed()
        return True

    return asyncio.run(main())


def spawned(directory: Path, **noted: int) -> None:
    (directory / "spawned.json").write_text(json.dumps(noted))


def test_of_the_node(tmp_path: Path, port: int) -> None:
    assert reached(tmp_path, port, own=False)


@pytest.mark.root
def test_of_the_network_that_its_process_sees(tmp_path: Path, port: int) -> None:
    spawned(tmp_path, pid=os.getpid(), start_time=family.start_time(os.getpid()))
    assert reached(tmp_path, port, own=True)


def test_a_process_that_has_its_number_by_now_is_not_taken_for_it(
    tmp_path: Path, port: int
) -> None:
    for noted in ({}, {"pid": os.getpid(), "start_time": 1}):
        spawned(tmp_path, **noted)
        with pytest.raises(Conflict, match="the job's process has ended"):
            reached(tmp_path, port, own=True)
