from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from moorage.backends.ssh import config
from moorage.backends.ssh.host import SshHost
from moorage.backends.ssh.interface import HostConfig, Knocked
from moorage.backends.ssh.knock import EVERY


def ask(directory: Path, port: int) -> Knocked | None:
    async def main() -> Knocked | None:
        way = HostConfig(fleet="lab", num=0, hostname="127.0.0.1", port=port)
        host = SshHost(way, "s1", directory)
        try:
            return await host.answers()
        finally:
            await host.close()

    return asyncio.run(main())


@pytest.mark.parametrize(("said", "there"), [(b"SSH-2.0-x\r\n", True), (b"", False)])
def test_a_host_is_there_when_its_sshd_greets(tmp_path: Path, said: bytes, there: bool) -> None:
    async def main() -> Knocked | None:
        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(said)
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await asyncio.to_thread(ask, tmp_path, port)

    assert asyncio.run(main()) == Knocked(there, EVERY)


def test_a_host_whose_port_is_closed_is_not_there(tmp_path: Path) -> None:
    assert ask(tmp_path, 1) == Knocked(False, EVERY)


def test_a_host_with_a_way_of_its_own_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "config_text", lambda *_: "Host *\n ProxyCommand true\n")
    assert ask(tmp_path, 1) is None
