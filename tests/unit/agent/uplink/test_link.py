from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve

from moorage import protocol
from moorage.agent.uplink import link as module
from moorage.agent.uplink.addresses import Addresses
from moorage.agent.uplink.link import Link, ProtocolMismatch, pause
from moorage.protocol.agent import (
    Ack,
    Forget,
    Held,
    Hello,
    Isolation,
    LogData,
    NodeResources,
    Report,
    ToAgent,
    Welcome,
    decode_to_server,
    encode,
)

HELLO = Hello(
    protocol.VERSION, "0", "n1", "boot", NodeResources(1, "x86", 1, 1), Isolation(), [], []
)
WELCOME = Welcome(protocol.VERSION, "0", 1, 1)


def test_pauses_grow_from_nothing_to_a_bound() -> None:
    assert pause(0) == pause(1) == 0.0
    assert 0.025 <= pause(2) <= 0.05
    assert 7.5 <= pause(50) <= 15.0
    assert 7.5 <= pause(5000) <= 15.0
    assert len({pause(50) for _ in range(10)}) > 1
    assert [pause(failures, 3) for failures in (1, 2, 3)] == [0.0, 0.0, 0.0]
    assert 0.025 <= pause(6, 3) <= 0.05
    assert 0.025 <= pause(500, 3) <= 0.05, "the next server of a round"
    assert 1.5 <= pause(501, 3) <= 3.0


class End:
    """The agent's end: a link and what it delivered."""

    def __init__(self, port: int, home: Path) -> None:
        (home / "token").write_text("secret\n")
        self.claims: dict[str, Held] = {}
        self.taken: asyncio.Queue[ToAgent] = asyncio.Queue()
        self.downs = 0
        self.addresses = Addresses([f"http://127.0.0.1:{port}"], home / "servers")
        self.link = Link(
            self.addresses,
            home / "token",
            home / "epoch",
            hello=lambda: HELLO,
            held=self.claims.get,
            handle=lambda message: self.taken.put_nowait(message),
            down=self.down,
        )

    def down(self) -> None:
        self.downs += 1


@asynccontextmanager
async def linked(
    home: Path, script: Callable[[ServerConnection], Awaitable[None]]
) -> AsyncIterator[tuple[End, asyncio.Task[None]]]:
    async with serve(script, "127.0.0.1", 0, compression=None) as server:
        end = End(server.sockets[0].getsockname()[1], home)
        running = asyncio.create_task(end.link.run())
        try:
            yield end, running
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, ProtocolMismatch):
                await running


def test_changes_gather_while_a_report_is_unacknowledged(tmp_path: Path) -> None:
    async def main() -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def script(socket: ServerConnection) -> None:
            assert decode_to_server(await socket.recv()) == HELLO
            await socket.send(encode(WELCOME))
            first = decode_to_server(await socket.recv())
            assert first == Report(1, [Held("1.1.0", "staging")])
            end.claims["1.1.0"] = Held("1.1.0", "running")
            end.link.changed("1.1.0", True)
            end.claims["2.1.0"] = Held("2.1.0", "running")
            end.link.changed("2.1.0", True)
            end.claims["1.1.0"] = Held("1.1.0", "done")
            end.link.changed("1.1.0", True)
            end.link.tell(Held("9.1.0", "done"))
            end.link.answer(lambda: LogData(5, 0, b"x"))
            # The answer does not wait for the acknowledgement, the report does.
            assert decode_to_server(await socket.recv()) == LogData(5, 0, b"x")
            await socket.send(encode(Ack(1)))
            second = decode_to_server(await socket.recv())
            assert isinstance(second, Report)
            assert (second.seq, [(h.key, h.state) for h in second.held]) == (
                2,
                [("1.1.0", "done"), ("2.1.0", "running"), ("9.1.0", "done")],
            )
            done.set_result(None)
            await socket.wait_closed()

        async with linked(tmp_path, script) as (end, _):
            end.claims["1.1.0"] = Held("1.1.0", "staging")
            # A change between Hello and Welcome is not lost.
            end.link._hello = lambda: (  # type: ignore[method-assign]
                asyncio.get_running_loop().call_soon(end.link.changed, "1.1.0", True) and HELLO
            )
            await asyncio.wait_for(done, 30)

    asyncio.run(main())


def test_a_standby_names_the_leader_which_is_dialled_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async def leads(socket: ServerConnection) -> None:
            await socket.recv()
            await socket.send(encode(WELCOME))
            await socket.send(encode(msgspec.structs.replace(WELCOME, servers=[standby, leader])))
            await socket.send(encode(Forget(["1.1.0"])))
            await socket.wait_closed()

        async def stands_by(socket: ServerConnection) -> None:
            await socket.recv()
            await socket.close(1013, leader)

        async with serve(leads, "127.0.0.1", 0) as other:
            leader = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}"
            async with linked(tmp_path, stands_by) as (end, _):
                standby = end.addresses.present
                assert await asyncio.wait_for(end.taken.get(), 30) == Forget(["1.1.0"])
                assert end.addresses.known == (leader, standby)

    asyncio.run(main())


def test_a_cancellation_while_a_connection_ends_is_not_missed(tmp_path: Path) -> None:
    async def main() -> None:
        async def script(socket: ServerConnection) -> None:
            await socket.recv()
            await socket.send(encode(WELCOME))
            await socket.send(encode(Forget(["1.1.0"])))
            await socket.wait_closed()

        async with linked(tmp_path, script) as (end, running):

            def broken(_message: ToAgent) -> None:
                asyncio.get_running_loop().call_soon(running.cancel)
                raise OSError("as if the connection broke")

            end.taken.put_nowait = broken  # type: ignore[method-assign]
            await asyncio.wait({running}, timeout=30)
            assert running.cancelled()

    asyncio.run(main())


def test_a_server_that_crashes_again_and_again_is_found_again_soon(tmp_path: Path) -> None:
    async def main() -> None:
        connections = 0
        enough = asyncio.Event()

        async def script(socket: ServerConnection) -> None:
            nonlocal connections
            connections += 1
            await socket.recv()
            await socket.send(encode(WELCOME))
            if connections == 12:  # by then the pauses of failures would have grown to 15 s
                enough.set()
                await socket.wait_closed()
            await socket.send(encode(Forget(["1.1.0"])))
            socket.transport.abort()

        async with linked(tmp_path, script):
            await asyncio.wait_for(enough.wait(), 20)  # less than those pauses

    asyncio.run(main())


def test_a_broken_connection_is_made_again_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        connections = 0
        second = asyncio.Event()

        async def script(socket: ServerConnection) -> None:
            nonlocal connections
            connections += 1
            await socket.recv()
            await socket.send(encode(WELCOME))
            if connections == 1:
                await socket.send(encode(Forget(["1.1.0"])))
                socket.transport.abort()
                return
            second.set()
            await socket.wait_closed()

        async with linked(tmp_path, script) as (end, _):
            assert await asyncio.wait_for(end.taken.get(), 30) == Forget(["1.1.0"])
            await asyncio.wait_for(second.wait(), 30)
            assert end.downs == 1

    asyncio.run(main())


def test_a_new_way_to_the_server_is_taken_at_once(tmp_path: Path) -> None:
    """Though the old connection seems to be well, and though a long pause had begun."""

    async def main() -> None:
        greeted: asyncio.Queue[None] = asyncio.Queue()

        async def script(socket: ServerConnection) -> None:
            await socket.recv()
            await socket.send(encode(WELCOME))
            greeted.put_nowait(None)
            await socket.wait_closed()

        async with linked(tmp_path, script) as (end, _):
            async with asyncio.timeout(30):
                for _ in range(3):
                    await greeted.get()
                    end.addresses.follow(end.addresses.present.replace("127.0.0.1", "localhost"))
                    end.link.retry.set()
                await greeted.get()

    asyncio.run(main())


def test_a_new_way_is_taken_while_the_old_one_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tunnel whose far end is gone accepts a connection, and is silent."""
    monkeypatch.setattr(Addresses, "next", lambda _: None)  # as with a tunnel
    monkeypatch.setattr(module, "_OPEN_TIMEOUT", 3600.0)

    async def main() -> None:
        greeted = asyncio.Event()

        async def script(socket: ServerConnection) -> None:
            await socket.recv()
            await socket.send(encode(WELCOME))
            greeted.set()
            await socket.wait_closed()

        accepted = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            accepted.set()
            await reader.read()
            writer.close()

        async with linked(tmp_path, script) as (end, _):
            await greeted.wait()
            alive = end.addresses.present
            async with await asyncio.start_server(silent, "127.0.0.1", 0) as dead:
                port = dead.sockets[0].getsockname()[1]
                end.addresses.follow(f"http://127.0.0.1:{port}")
                end.link.retry.set()
                await asyncio.wait_for(accepted.wait(), 30)
                greeted.clear()
                end.addresses.follow(alive)
                end.link.retry.set()
                await asyncio.wait_for(greeted.wait(), 30)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (no event tells what is inside)
        await asyncio.sleep(0)


def test_a_way_that_is_in_use_already_is_kept(tmp_path: Path) -> None:
    """The agent may see the new address before it is told of it."""

    async def main() -> None:
        told = asyncio.Event()

        async def script(socket: ServerConnection) -> None:
            await socket.recv()
            await socket.send(encode(WELCOME))
            await told.wait()
            await socket.send(encode(Ack(1)))
            await socket.wait_closed()

        async with linked(tmp_path, script) as (end, _):
            async with asyncio.timeout(30):
                end.link.retry.set()  # also what came while it connected
                await until(lambda: end.link._up)
                end.link.retry.set()
                told.set()
                await until(lambda: end.link._acked > 0)
            assert end.downs == 0

    asyncio.run(main())


@pytest.mark.parametrize("way", ["welcome", "close"])
def test_another_protocol_is_final(tmp_path: Path, way: str) -> None:
    async def main() -> None:
        async def script(socket: ServerConnection) -> None:
            await socket.recv()
            if way == "close":
                await socket.close(1002, "the agent speaks protocol 1, the server 2")
                return
            await socket.send(encode(Welcome(protocol.VERSION + 1, "9", 1, 1)))
            await socket.wait_closed()

        async with linked(tmp_path, script) as (_, running):
            with pytest.raises(ProtocolMismatch, match="protocol"):
                await asyncio.wait_for(running, 30)

    asyncio.run(main())


def test_a_message_that_makes_no_sense_ends_only_the_connection(tmp_path: Path) -> None:
    async def main() -> None:
        connections = 0
        second = asyncio.Event()

        async def script(socket: ServerConnection) -> None:
            nonlocal connections
            connections += 1
            await socket.recv()
            await socket.send(encode(WELCOME))
            if connections == 1:
                await socket.send(b"\xc1 nonsense")
            else:
                second.set()
            await socket.wait_closed()

        async with linked(tmp_path, script) as (end, _):
            await asyncio.wait_for(second.wait(), 30)
            assert end.downs == 1

    asyncio.run(main())


def test_without_a_token_it_says_so_and_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        end = End(1, tmp_path)
        (tmp_path / "token").unlink()
        running = asyncio.create_task(end.link.run())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not running.done()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    with caplog.at_level("WARNING", "moorage.agent"):
        asyncio.run(main())
    assert "token cannot be read" in caplog.text
    assert "secret" not in caplog.text


def test_reports_keep_their_pace_unless_work_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PACE", 3600.0)

    async def main() -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def script(socket: ServerConnection) -> None:
            await socket.recv()
            end.link.changed("1.1.0", True)
            await socket.send(encode(WELCOME))
            assert isinstance(decode_to_server(await socket.recv()), Report)
            await socket.send(encode(Ack(1)))
            for key in ("1.1.0", "2.1.0"):
                end.claims[key] = Held(key, "done")
                end.link.changed(key, True)
            end.link.answer(lambda: LogData(5, 0, b"x"))
            assert decode_to_server(await socket.recv()) == LogData(5, 0, b"x")
            assert end.link._changed, "it waits for its time"
            end.link.hurry()
            second = decode_to_server(await socket.recv())
            assert isinstance(second, Report)
            assert [held.key for held in second.held] == ["1.1.0", "2.1.0"]
            done.set_result(None)
            await socket.wait_closed()

        async with linked(tmp_path, script) as (end, _):
            end.claims["1.1.0"] = Held("1.1.0", "staging")
            end.link._reported = -3600.0
            await asyncio.wait_for(done, 30)

    asyncio.run(main())
