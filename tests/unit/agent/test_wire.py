from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from moorage.agent.wire import Wire, dial


class Ends:
    """A wire, and the other side of it."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.lost = 0
        self.streams: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self.streams = asyncio.Queue()

    def end(self, _wire: Wire) -> None:
        self.lost += 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.streams.put((reader, writer))


@asynccontextmanager
async def joined(home: Path) -> AsyncIterator[tuple[Ends, Wire, asyncio.StreamReader]]:
    ends = Ends()
    server = await asyncio.start_unix_server(ends.serve, "keeper.sock")
    wire = await dial(home, ends.received.append, ends.end)
    assert wire is not None
    reader, writer = await ends.streams.get()
    try:
        ends.streams.put_nowait((reader, writer))
        yield ends, wire, reader
    finally:
        await wire.close()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()


def test_lines_come_whole_whatever_their_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [b"a", b"b" * 300_000, b"", b"c"]

    async def scenario() -> None:
        async with joined(tmp_path) as (ends, wire, _):
            _, writer = ends.streams.get_nowait()
            writer.write(b"\n".join([*lines, b"torn"]))
            await writer.drain()
            writer.close()
            await asyncio.wait_for(wire.ended(), 60)
            assert ends.received == lines
            assert ends.lost == 1

    monkeypatch.chdir(tmp_path)
    asyncio.run(scenario())


def test_what_is_said_in_one_round_goes_in_one_piece_and_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with joined(tmp_path) as (ends, wire, reader):
            wire.say(b"one")
            wire.say(b"two")
            assert await reader.read(100) == b"one\ntwo\n"
            wire.say(b"three")
            await wire.close()
            assert await reader.read() == b"three\n"
            assert ends.lost == 1

    monkeypatch.chdir(tmp_path)
    asyncio.run(scenario())


def test_where_none_listens_there_is_no_wire(tmp_path: Path) -> None:
    async def scenario() -> None:
        assert await dial(tmp_path, [].append, lambda wire: None) is None

    asyncio.run(scenario())
