"""Errors as HTTP: each class of `moorage.errors` has its status, every body is an ErrorBody."""

from __future__ import annotations

import msgspec
from msgspec import Struct
from starlette.responses import Response

from moorage.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    MoorageError,
    NotFound,
    Unavailable,
)
from moorage.protocol.api import ErrorBody
from moorage.server.auth import TooMany, Unauthorized
from moorage.server.table import TooLarge

JSON = "application/json"


class Malformed(InvalidInput):
    """The request is not what the route reads: no JSON, a wrong type, an unknown parameter."""


class WrongMedia(InvalidInput):
    """The body is announced as something that the route does not read."""


STATUSES: tuple[tuple[type[MoorageError], int], ...] = (
    (Unauthorized, 401),
    (Malformed, 400),
    (TooLarge, 413),
    (WrongMedia, 415),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (InvalidInput, 422),
    (Unavailable, 503),
)


def status_of(error: MoorageError) -> int:
    """The HTTP status of an error; the first class that fits."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def error_body(error: MoorageError) -> ErrorBody:
    """What the client is told."""
    problems = [str(p) for p in error.problems] if isinstance(error, InvalidInput) else []
    message = str(error)
    if len(problems) > 1:
        message = f"{problems[0]} (and {len(problems) - 1} more)"
    return ErrorBody(code=error.code, message=message, problems=problems)


def json_reply(body: Struct, status: int = 200) -> Response:
    """A reply with a JSON document."""
    return Response(msgspec.json.encode(body), status, media_type=JSON)


def error_reply(error: MoorageError) -> Response:
    """The reply for an error that a handler raised."""
    status = status_of(error)
    reply = json_reply(error_body(error), status)
    if status == 401:
        reply.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooMany):
        reply.headers["Retry-After"] = "1"
    return reply


WORDS = {404: "not-found", 405: "invalid", 403: "forbidden", 401: "forbidden"}


def http_reply(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """The reply for what no handler was reached for: unknown path, wrong method."""
    code = WORDS.get(status, "invalid" if status < 500 else "error")
    reply = json_reply(ErrorBody(code=code, message=message), status)
    reply.headers.update(headers or {})
    return reply
