"""The ASGI application: the route table behind host check, request ids, tokens and decoding."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moorage.decoding import converted, from_json
from moorage.errors import MoorageError, Problem
from moorage.server import auth
from moorage.server.replies import JSON, Malformed, WrongMedia, error_reply, http_reply, json_reply
from moorage.server.routes import ROUTES, relays, streams
from moorage.server.routes.agent import AGENT_PATH, serve_agent
from moorage.server.services import Services
from moorage.server.stream import Gone
from moorage.server.table import AnyRoute, Call, NoBody, RawBody, read_body
from moorage.store.base import StoreBroken

Endpoint = Callable[[Request], Awaitable[Response]]
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

_log = logging.getLogger(__name__)


def build(services: Services) -> ASGIApp:
    """The whole server as one ASGI application."""
    return Guard(assemble(services), services.loopback)


def assemble(services: Services) -> ASGIApp:
    """The application without what surrounds every request."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, {})[route.method] = _endpoint(route, services)
    routes: list[BaseRoute] = [
        WebSocketRoute(AGENT_PATH, serve_agent(services)),
        *streams.routes(services),
        *relays.routes(services),
    ]
    # Fixed paths first: `/v1/blobs/missing` is no digest.
    for path in sorted(by_path, key=lambda text: ("{" in text, text)):
        routes.append(Route(path, Methods(by_path[path])))
    return Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: _on_http_error,
            MoorageError: _on_error,
            StoreBroken: _on_lost_store if services.peers else _on_error,
            Gone: _on_gone,
            ClientDisconnect: _on_gone,
            Exception: _on_crash,
        },
    )


class Methods:
    """One path. A method that it does not have is answered here, never by a later route whose
    pattern happens to match."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self.endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        endpoint = self.endpoints.get(scope["method"])
        if endpoint is None:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self.endpoints))})
        reply = await endpoint(Request(scope, receive, send))
        await reply(scope, receive, send)


def _endpoint(route: AnyRoute, services: Services) -> Endpoint:
    async def serve(request: Request) -> Response:
        owner = None
        if route.access:
            owner = await services.admission.authenticate(request.headers.get("authorization"))
            auth.authorize(owner, route.access)
        params = _params(route, request)
        body = await _body(route, request)
        reply = await route.handler(Call(services, request, owner, params, body))
        return json_reply(reply) if isinstance(reply, Struct) else reply

    return serve


def _params(route: AnyRoute, request: Request) -> Struct:
    kind: type[Struct] = route.params
    given: dict[str, Any] = {}
    for key, value in request.query_params.multi_items():
        if key in given or key in request.path_params:
            raise Malformed(Problem("given twice", field=key))
        given[key] = value
    given.update(request.path_params)
    try:
        params: Struct = converted(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _malformed(error, "parameter") from None
    for key in given:
        if getattr(params, key) is None:  # msgspec reads the word `null` as nothing
            raise Malformed(Problem("`null` is no value; leave it out", field=key))
    return params


async def _body(route: AnyRoute, request: Request) -> Struct:
    kind: type[Struct] = route.body
    if kind in (NoBody, RawBody):
        return kind()
    media = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    raw = await read_body(request)
    if not raw and route.body_optional:
        return kind()
    if media != JSON:
        raise WrongMedia(f"the body must be {JSON}, not {media}")
    try:
        return from_json(raw, kind)
    except msgspec.ValidationError as error:
        raise _malformed(error, "body") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"the body is not JSON: {error}") from None


def _malformed(error: msgspec.ValidationError, what: str) -> Malformed:
    """msgspec writes ``Expected `int`, got `str` - at `$.runs[0].x` ``: place and reason."""
    reason, _, place = str(error).partition(" - at `")
    field = place.rstrip("`").removeprefix("$").removeprefix(".")
    return Malformed(Problem(reason, field=field or what))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path}"
    return http_reply(error.status_code, message, dict(error.headers or {}))


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MoorageError)
    return error_reply(error)


async def _on_lost_store(request: Request, error: Exception) -> Response:
    """This server leads no longer, or cannot read: another one can, or this one soon."""
    reply = await _on_error(request, error)
    reply.headers["Retry-After"] = "1"
    return reply


async def _on_gone(request: Request, error: Exception) -> Response:
    return http_reply(400, "the client disconnected")


async def _on_crash(request: Request, error: Exception) -> Response:
    return http_reply(500, "internal error; the server's log has it under this request id")


class Guard:
    """Outermost: names every request, and refuses those meant for another host."""

    def __init__(self, application: ASGIApp, loopback: bool) -> None:
        self.application = application
        self.loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] not in ("http", "websocket"):
            await self.application(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        secure = scope.get("scheme") in ("https", "wss")  # no web page has a certificate of ours
        if self.loopback and not secure and not auth.is_own_host(headers.get("host")):
            reply = http_reply(403, "this server answers only for localhost and 127.0.0.1")
            await reply(scope, receive, named)
            return
        try:
            await self.application(scope, receive, named)
        except Exception:
            if scope["type"] == "websocket":
                raise  # uvicorn can tell a lost connection from a defect
            # Answered already; uvicorn would log it without the id.
            _log.exception("request %s failed: %s %s", request_id, scope["method"], scope["path"])
