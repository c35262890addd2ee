from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from moorage.errors import InvalidInput
from moorage.server import secure
from moorage.server.authority import DAYS, certificate_of, make_authority
from moorage.server.certificates import Given, Own
from moorage.server.places import Place, parse
from moorage.server.replies import http_reply
from moorage.server.secure import listen_secure
from moorage.trust import complaint, context, in_the_clear

HERE = "127.0.0.1"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def authority() -> str:
    return make_authority("test", time.time())


async def application(scope, receive, send):
    await http_reply(404, f"over {scope['scheme']}")(scope, receive, send)


@asynccontextmanager
async def listening(certificates) -> AsyncIterator[int]:
    with socket.create_server((HERE, 0)) as made:
        made.setblocking(False)
        async with listen_secure(application, [made], certificates):
            yield made.getsockname()[1]


async def ask(port: int, trusted: ssl.SSLContext, name: str = HERE) -> bytes:
    reader, writer = await asyncio.open_connection(HERE, port, ssl=trusted, server_hostname=name)
    writer.write(REQUEST)
    reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    return reply


def test_only_who_trusts_the_authority_gets_through(authority):
    async def main() -> None:
        async with listening(Own(authority, [HERE])) as port:
            assert b"over https" in await ask(port, context(certificate_of(authority)))
            with pytest.raises(ssl.SSLError) as of_another:
                await ask(port, context(certificate_of(make_authority("b", time.time()))))
            assert "moorage server ca" in complaint(of_another.value)
            with pytest.raises(ssl.SSLError):
                await ask(port, context(""))
            with pytest.raises(ssl.SSLError) as misnamed:
                await ask(port, context(certificate_of(authority)), "other.example")
            assert "other names" in complaint(misnamed.value)

    asyncio.run(main())


def test_a_certificate_is_renewed_and_an_expired_one_is_refused(authority):
    async def main() -> None:
        clock = [time.time() - (DAYS + 1) * 86_400]
        own = Own(authority, [HERE], lambda: clock[0])
        async with listening(own) as port:
            with pytest.raises(ssl.SSLError) as expired:
                await ask(port, context(certificate_of(authority)))
            assert "has expired" in complaint(expired.value)
            clock[0] = time.time()
            assert b"over https" in await ask(port, context(certificate_of(authority)))

    # The authority must be older than what it signs.
    authority = make_authority("test", time.time() - 100 * 86_400)
    asyncio.run(main())


def test_slow_handshakes_give_way(authority, monkeypatch):
    monkeypatch.setattr(secure, "GREETINGS", 4)

    async def main() -> None:
        async with listening(Own(authority, [HERE])) as port:
            slow = [await asyncio.open_connection(HERE, port) for _ in range(12)]
            assert b"over https" in await ask(port, context(certificate_of(authority)))
            assert await asyncio.wait_for(slow[0][0].read(), 30) == b"", "the oldest gave way"
            for _, writer in slow:
                writer.close()
                await writer.wait_closed()

    asyncio.run(main())


def test_whoever_sends_no_request_is_left(authority, monkeypatch):
    monkeypatch.setattr(secure, "HEAD_WITHIN", 0.1)

    async def main() -> None:
        async with listening(Own(authority, [HERE])) as port:
            trusted = context(certificate_of(authority))
            reader, writer = await asyncio.open_connection(HERE, port, ssl=trusted)
            writer.write(REQUEST[:9])
            with pytest.raises((ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), 30)
            writer.close()

    asyncio.run(main())


def test_the_operators_files_are_read_again(authority, tmp_path: Path):
    from moorage.server.authority import issue

    def write(authority: str) -> None:
        pem = issue(authority, [HERE], time.time()).pem
        certificate, _, key = pem.partition("-----BEGIN PRIVATE KEY-----")
        (tmp_path / "c.pem").write_text(certificate)
        (tmp_path / "k.pem").write_text("-----BEGIN PRIVATE KEY-----" + key)

    async def main() -> None:
        with pytest.raises(InvalidInput, match=r"tls: .*cannot be used"):
            Given(tmp_path / "c.pem", tmp_path / "k.pem", None)
        write(authority)
        given = Given(tmp_path / "c.pem", tmp_path / "k.pem", None)
        assert given.ca == ""
        async with listening(given) as port:
            assert b"over https" in await ask(port, context(certificate_of(authority)))
            (tmp_path / "k.pem").write_text("half")
            assert b"over https" in await ask(port, context(certificate_of(authority)))
            other = make_authority("b", time.time())
            write(other)
            assert b"over https" in await ask(port, context(certificate_of(other)))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10.0.0.5", Place("10.0.0.5", 7321)),
        ("10.0.0.5:80", Place("10.0.0.5", 80)),
        ("[::1]:80", Place("::1", 80)),
        ("fd00::1", Place("fd00::1", 7321)),
        ("Node-1.example:443", Place("node-1.example", 443)),
    ],
)
def test_places(text, place):
    assert parse([text, text]) == [place]


@pytest.mark.parametrize(
    "text", ["", ":1", "a:b", "a:0", "a:70000", "http://a", "10.0.0.300", "-a"]
)
def test_what_is_no_place_is_named(text):
    with pytest.raises(InvalidInput, match="is no place to listen on; write ADDRESS"):
        parse([text])


def test_tokens_cross_no_network_in_the_clear():
    assert in_the_clear("http://10.0.0.5:1")
    assert in_the_clear("ws://node:1/v1/agent")
    assert not in_the_clear("https://10.0.0.5:1")
    assert not in_the_clear("http://127.0.0.1:1")
