"""The WebSockets of streams: a client's, which names a run, and the agent's that answers it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import msgspec
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from moorage.core.effects import Effect, Emit
from moorage.core.job import Running
from moorage.engine.loop import Engine
from moorage.errors import Conflict, Forbidden, InvalidInput, MoorageError, NotFound, Unavailable
from moorage.ids import AttemptKey, JobId, NodeId, RunId
from moorage.protocol import streams
from moorage.protocol.agent import OpenStream
from moorage.protocol.api import FINAL_STATES
from moorage.protocol.streams import (
    Command,
    Opened,
    Port,
    Purpose,
    Shell,
    StreamRequest,
    nothing_runs,
)
from moorage.server import auth
from moorage.server.replies import error_reply
from moorage.server.services import Services
from moorage.server.site import NODE_LABEL
from moorage.server.splice import Meeting, Meetings, close, splice
from moorage.server.table import NODES, USERS

REQUEST_PATIENCE = 10.0
"""Seconds that a client has to say what it wants."""
AGENT_PATIENCE = 15.0
"""Seconds that an agent has to dial."""
_LONGEST_NAME = 64

Endpoint = Callable[[WebSocket], Awaitable[None]]


class Place(NamedTuple):
    """Where a rank runs."""

    run: RunId
    job: JobId
    node: NodeId
    key: str


def routes(services: Services) -> list[BaseRoute]:
    """Both ends; they share what only this server knows."""
    meetings = Meetings()
    return [
        WebSocketRoute(streams.CLIENT_PATH, _serve_client(services, meetings)),
        WebSocketRoute(streams.AGENT_PATH, _serve_agent(services, meetings)),
    ]


def _serve_client(services: Services, meetings: Meetings) -> Endpoint:
    async def serve(socket: WebSocket) -> None:
        try:
            owner = await services.admission.authenticate(socket.headers.get("authorization"))
            auth.authorize(owner, USERS)
        except (Forbidden, Unavailable) as error:
            await socket.send_denial_response(error_reply(error))
            return
        await socket.accept()
        with suppress(WebSocketDisconnect):
            try:
                await _attend(services.engine, meetings, socket, owner.subject)
            except MoorageError as error:
                refusal = Opened(code=error.code, error=str(error))
                await socket.send_bytes(streams.encode(refusal))
                await close(socket)

    return serve


def _serve_agent(services: Services, meetings: Meetings) -> Endpoint:
    async def serve(socket: WebSocket) -> None:
        try:
            owner = await services.admission.authenticate(socket.headers.get("authorization"))
            auth.authorize(owner, NODES)
            meeting = meetings.find(socket.path_params["id"])
            hosts = services.engine.cluster.hosts_by_node
            if meeting is None or not _is_of(owner.subject, meeting.node, meeting.node in hosts):
                raise NotFound("nobody waits for this stream")
        except (Forbidden, NotFound, Unavailable) as error:
            await socket.send_denial_response(error_reply(error))
            return
        await socket.accept()
        if not meeting.came.done():
            meeting.came.set_result(socket)
            await meeting.over.wait()
        await close(socket)

    return serve


def _is_of(subject: str, node: str, is_host: bool) -> bool:
    """As for the agent's own connection: a host's token speaks for the host, the server's own
    for its machine."""
    return subject == node or (subject == NODE_LABEL and not is_host)


async def _attend(engine: Engine, meetings: Meetings, socket: WebSocket, user: str) -> None:
    """One client's stream, from what it wants to the end. MoorageError."""
    request = await _request(socket)
    place = await _find(engine, socket.path_params["ref"], request)
    if place.node not in engine.links.connected():
        name = engine.cluster.nodes[place.node].name
        raise Unavailable(f"node {name} is away: its job may run on, but cannot be reached now")
    await engine.perform(lambda: _tell(place, user, request))
    number, meeting = meetings.expect(engine.cluster.nodes[place.node].name)
    try:
        engine.links.send(place.node, OpenStream(number, place.key, request.purpose))
        agent = await _await_agent(meeting)
        await splice(socket, agent)
    finally:
        meetings.end(number)


async def _request(socket: WebSocket) -> StreamRequest:
    try:
        async with asyncio.timeout(REQUEST_PATIENCE):
            request = streams.decode_request(await socket.receive_bytes())
    except TimeoutError:
        raise InvalidInput("the stream was opened, but nothing was asked for") from None
    except (msgspec.MsgspecError, KeyError) as error:
        raise InvalidInput(f"not a request for a stream: {error}") from None
    _check(request.purpose)
    return request


def _check(purpose: Purpose) -> None:
    match purpose:
        case Command(argv=argv) if not argv or not argv[0]:
            raise InvalidInput("no command was given")
        case Command(argv=argv) if any("\0" in word for word in argv):
            raise InvalidInput("a command cannot have null characters")
        case Shell(public_key=key) if not key.strip() or "\n" in key.strip():
            raise InvalidInput("the public key must be one line")
        case Port(port=port) if not 0 < port < 65536:
            raise InvalidInput(f"{port} is not a port from 1 to 65535")


async def _find(engine: Engine, ref: str, request: StreamRequest) -> Place:
    """The attempt that is meant, which runs. NotFound, Conflict."""
    summary = await engine.view(partial(engine.history.summary, ref))
    run = RunId(summary.id)
    tries = await engine.view(partial(engine.history.tries, run, request.job, 0))
    if tries is None and request.job is not None:
        raise NotFound(f"run {summary.name} has no job {request.job}")
    job = None if tries is None else engine.cluster.jobs.get(tries.id)
    if job is None or not isinstance(job.state, Running):
        state = summary.state if job is None else job.state.name
        raise Conflict(nothing_runs(summary.name, state, ended=state in FINAL_STATES))
    nodes = [job.state.node, *(worker.node for worker in job.state.workers)]
    if not 0 <= request.rank < len(nodes):
        has = "one rank, 0" if len(nodes) == 1 else f"ranks 0 to {len(nodes) - 1}"
        raise NotFound(f"run {summary.name} has no rank {request.rank}: it has {has}")
    key = str(AttemptKey(job.id, job.state.attempt, request.rank))
    return Place(run, job.id, nodes[request.rank], key)


def _tell(place: Place, user: str, request: StreamRequest) -> Sequence[Effect]:
    """Who looks in; of a command its name alone, as its words may be secret."""
    match request.purpose:
        case Command(argv=argv):
            name = argv[0].rpartition("/")[2][:_LONGEST_NAME]
            kind, data = "run.exec", {"by": user, "command": name}
        case Shell():
            kind, data = "run.ssh", {"by": user}
        case Port():
            return []  # each page of a browser opens several
    told = data | {"rank": request.rank}
    return [Emit(kind, place.run, place.job, place.node, told)]


async def _await_agent(meeting: Meeting) -> WebSocket:
    try:
        async with asyncio.timeout(AGENT_PATIENCE):
            return await meeting.came
    except TimeoutError:
        raise Unavailable(
            f"node {meeting.node} does not answer: it was asked for a stream "
            f"{AGENT_PATIENCE:.0f} seconds ago"
        ) from None
