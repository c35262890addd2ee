from __future__ import annotations

import asyncio
import os
import socket

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedOK

from moorage.data import relay as relay_module
from moorage.data.relay import Relay
from moorage.data.wsframes import Frames

SIZES = (1, 125, 126, 127, 65_535, 65_536, 300_000)


def relayed(handler: object, work: object) -> None:
    """Run `work(port)` beside a relay to a server of WebSockets that does `handler`."""

    async def run() -> None:
        async with serve(handler, "127.0.0.1", 0, max_size=None) as server:  # type: ignore[arg-type]
            port = server.sockets[0].getsockname()[1]
            url = f"ws://127.0.0.1:{port}/"

            async def dial() -> ClientConnection:
                return await connect(url, compression=None, ping_interval=None)

            relay = Relay(dial)
            try:
                await asyncio.wait_for(work(await relay.listen(), relay), 100)  # type: ignore[operator]
            finally:
                await relay.close()

    asyncio.run(run())


def test_bytes_of_all_sizes_come_back() -> None:
    async def echo(server: ServerConnection) -> None:
        async for data in server:
            await server.ping()  # answered between two messages
            await server.send(data)

    async def work(port: int, relay: Relay) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for size in SIZES:
            content = os.urandom(size)
            writer.write(content)
            assert await reader.readexactly(size) == content
        assert not relay.idle.is_set()
        writer.close()
        await relay.idle.wait()

    relayed(echo, work)


def test_the_kernel_asks_whether_the_server_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[socket.socket] = []
    watch = relay_module._watch
    monkeypatch.setattr(relay_module, "_watch", lambda s: (watched.append(s), watch(s)))

    async def echo(server: ServerConnection) -> None:
        async for data in server:
            await server.send(data)

    async def work(port: int, relay: Relay) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        (server,) = watched
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        for option, value in relay_module.KEEPALIVE:
            assert server.getsockopt(socket.IPPROTO_TCP, option) == value
        writer.close()
        await relay.idle.wait()

    relayed(echo, work)


def test_the_end_of_the_servers_side_is_the_end() -> None:
    async def once(server: ServerConnection) -> None:
        await server.recv()
        await server.send(b"bye")

    async def work(port: int, relay: Relay) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        assert await reader.read() == b"bye"
        writer.close()
        await relay.idle.wait()

    relayed(once, work)


def test_whoever_hangs_up_is_told_to_the_server() -> None:
    told: list[type[BaseException]] = []

    async def waits(server: ServerConnection) -> None:
        try:
            await server.recv()
            await server.recv()
        except BaseException as error:
            told.append(type(error))

    async def work(port: int, relay: Relay) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"1")
        await writer.drain()
        writer.close()
        await relay.idle.wait()

    relayed(waits, work)
    assert told == [ConnectionClosedOK]


@pytest.mark.parametrize("upward", [True, False])
def test_who_does_not_read_keeps_the_other_from_sending(upward: bool) -> None:
    sent, piece, most = [0], bytes(65_536), 32 * 2**20
    go_on = asyncio.Event()

    async def server_side(server: ServerConnection) -> None:
        if upward:
            await go_on.wait()
            left = most
            while left:
                left -= len(await server.recv())
            await server.send(b"all")
            return
        await server.recv()
        while sent[0] < most:
            await server.send(piece)
            sent[0] += len(piece)

    async def work(port: int, relay: Relay) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if upward:
            while sent[0] < most:
                writer.write(piece)
                sent[0] += len(piece)
                try:
                    await asyncio.wait_for(writer.drain(), 0.3)
                except TimeoutError:
                    break
            assert sent[0] < most
            go_on.set()
            while sent[0] < most:
                writer.write(piece)
                sent[0] += len(piece)
                await writer.drain()
            assert await reader.readexactly(3) == b"all"
        else:
            writer.write(b"go on")
            first = await reader.readexactly(10)
            before = -1
            while before != sent[0]:
                before = sent[0]
                await asyncio.sleep(0.1)
            assert sent[0] < most
            rest = await reader.read(-1)
            assert len(first) + len(rest) == most
        writer.close()

    relayed(server_side, work)


def test_one_that_reads_nothing_does_not_keep_a_relay_from_ending() -> None:
    stands = asyncio.Event()

    async def pours(server: ServerConnection) -> None:
        await server.recv()
        try:
            while True:
                await asyncio.wait_for(server.send(bytes(65_536)), 0.3)
        except TimeoutError:
            stands.set()
            await server.wait_closed()

    async def work(port: int, relay: Relay) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"go on")
        await reader.readexactly(10)
        await stands.wait()
        await relay.close()
        assert relay.idle.is_set()
        writer.close()

    relayed(pours, work)


def test_heads_that_come_in_pieces() -> None:
    here, there = socket.socketpair()

    async def run() -> bytes:
        got: list[bytes] = []
        over = asyncio.Event()
        frames = Frames(got.append, over.set, lambda held: None)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=here)
        frames.begin(transport)
        for byte in b"\x82\x7e\x00\x80" + b"x" * 128 + b"\x82\x00" + b"\x88\x02\x03\xe8":
            frames.data_received(bytes([byte]))
        await over.wait()
        return b"".join(got)

    assert asyncio.run(run()) == b"x" * 128
    with there:
        assert there.recv(100)[:2] == b"\x88\x82"
