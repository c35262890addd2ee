"""The WebSocket of agents: the first message is a Hello, then both sides speak as they need."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from moorage.engine.links import Link
from moorage.engine.loop import Engine
from moorage.errors import Forbidden, MoorageError, Unavailable
from moorage.protocol import VERSION
from moorage.protocol.agent import Beat, Dropped, Hello, Report, ToServer, decode_to_server
from moorage.protocol.health import Health
from moorage.server import auth
from moorage.server.replies import error_reply
from moorage.server.services import Services
from moorage.server.site import NODE_LABEL
from moorage.server.table import NODES

AGENT_PATH = "/v1/agent"
HELLO_TIMEOUT = 10.0

GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
POLICY = 1008
RESTARTING = 1012

_log = logging.getLogger(__name__)


class Refused(Exception):
    """The connection cannot go on; `code` is the WebSocket's close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def serve_agent(services: Services) -> Callable[[WebSocket], Awaitable[None]]:
    """The endpoint. A wrong token is refused before the upgrade, with an ordinary HTTP reply."""

    async def serve(socket: WebSocket) -> None:
        try:
            owner = await services.admission.authenticate(socket.headers.get("authorization"))
            auth.authorize(owner, NODES)
        except (Forbidden, Unavailable) as error:
            await socket.send_denial_response(error_reply(error))
            return
        engine = services.engine
        connection = engine.links.accept()
        await socket.accept()
        try:
            await _converse(engine, connection, socket, owner.subject)
        except Refused as refusal:
            _log.warning("an agent was refused: %s", refusal)
            await socket.close(refusal.code, str(refusal)[:120])
        except MoorageError as error:
            await socket.close(RESTARTING, str(error)[:120])
        except WebSocketDisconnect:
            pass

    return serve


async def _converse(engine: Engine, connection: int, socket: WebSocket, subject: str) -> None:
    try:
        async with asyncio.timeout(HELLO_TIMEOUT):
            hello = await _receive(socket)
    except TimeoutError:
        raise Refused(POLICY, "no hello came") from None
    if not isinstance(hello, Hello):
        raise Refused(PROTOCOL_ERROR, "the first message must be a hello")
    if hello.protocol != VERSION:
        raise Refused(
            PROTOCOL_ERROR,
            f"the agent speaks protocol {hello.protocol}, the server {VERSION}: update the older",
        )
    _require_own(engine, hello.node, subject)
    _require_alone(engine, hello)
    link = await engine.hello(hello, connection)
    _log.info("node %s is connected", link.name)
    talking = [
        asyncio.ensure_future(_listen(engine, link, socket)),
        asyncio.ensure_future(_speak(link, socket)),
    ]
    try:
        done, _ = await asyncio.wait(talking, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
        engine.lost(link)
        _log.info("node %s is gone: %s", link.name, link.closed)


def _require_own(engine: Engine, node: str, subject: str) -> None:
    """A token speaks for one node: that of a host for the host's, the server's own for its
    machine."""
    own = subject == NODE_LABEL and node not in engine.cluster.hosts_by_node
    if node != subject and not own:
        raise Refused(POLICY, f"this token is not that of node {node}")


def _require_alone(engine: Engine, hello: Hello) -> None:
    """Another machine under the name of one that is heard would pass for its reboot, and what runs
    there for lost. One that was really booted again is let in when the silence is long enough."""
    known = engine.cluster.node_names.get(hello.node)
    if known is None or engine.cluster.nodes[known].boot_id == hello.boot_id:
        return
    if engine.links.of(known) is not None:
        raise Refused(
            POLICY,
            f"another machine is connected as node {hello.node}: each needs a name of its own",
        )


async def _listen(engine: Engine, link: Link, socket: WebSocket) -> None:
    while True:
        message = await _receive(socket)
        if isinstance(message, Report):
            engine.report(link, message)
        elif isinstance(message, Beat):
            engine.beat(link, message.number)
        elif isinstance(message, Dropped):
            engine.dropped(link, message.keys)
        elif isinstance(message, Health):
            engine.health(link, message)
        elif isinstance(message, Hello):
            raise Refused(PROTOCOL_ERROR, "a second hello on one connection")
        else:
            link.answered(message)


async def _speak(link: Link, socket: WebSocket) -> None:
    while (data := await link.frame()) is not None:
        await socket.send_bytes(data)
    await socket.close(GOING_AWAY, link.closed[:120])


async def _receive(socket: WebSocket) -> ToServer:
    try:
        return cast(ToServer, decode_to_server(await socket.receive_bytes()))
    except (msgspec.DecodeError, KeyError) as error:
        raise Refused(PROTOCOL_ERROR, f"not a message of this protocol: {error}") from None
