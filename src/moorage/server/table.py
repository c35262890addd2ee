"""What a route is: the one description from which requests are checked, replies encoded and the
OpenAPI document generated."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from moorage.errors import InvalidInput
from moorage.server.services import Services
from moorage.server.tokens import Kind, Principal

MIB = 1024 * 1024
BODY_LIMIT = 64 * MIB
"""Bytes that a JSON document, a pack or one part of a large blob may have."""

OPEN: frozenset[Kind] = frozenset()
USERS: frozenset[Kind] = frozenset({"user"})
NODES: frozenset[Kind] = frozenset({"node"})
ANY_TOKEN: frozenset[Kind] = frozenset({"user", "node"})


class NoParams(Struct, frozen=True, forbid_unknown_fields=True):
    """A route without parameters."""


class NoBody(Struct, frozen=True):
    """A route that reads no body."""


class RawBody(Struct, frozen=True):
    """A route that reads bytes (`application/octet-stream`) from the request by itself."""


class TooLarge(InvalidInput):
    """The body is larger than any request may be."""


P = TypeVar("P", bound=Struct)
B = TypeVar("B", bound=Struct)


@dataclass(frozen=True, slots=True)
class Call(Generic[P, B]):
    """One request, checked."""

    services: Services
    request: Request
    owner: Principal | None
    """Whose token it came with; None on open routes."""
    params: P
    body: B

    @property
    def user(self) -> str:
        """The user who asks."""
        return self.owner.subject if self.owner else ""


Handler = Callable[[Call[P, B]], Awaitable[Struct | Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[P, B]):
    """One method of one path."""

    method: str
    path: str
    summary: str
    handler: Handler[P, B]
    params: type[P]
    """Fields named in `path` come from there, the others from the query string."""
    body: type[B]
    reply: type[Struct] | None = None
    """The JSON reply, if it can be one."""
    media: tuple[str, ...] = ()
    """What else the reply can be."""
    access: frozenset[Kind] = USERS
    errors: tuple[int, ...] = ()
    """Statuses that this route may answer beside those of every route."""
    body_optional: bool = False
    """An empty body means all defaults."""


AnyRoute = Route[Any, Any]


async def read_body(request: Request, limit: int = BODY_LIMIT) -> bytes:
    """The whole body; TooLarge before more than `limit` bytes are taken."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise TooLarge(f"the body has {announced} bytes; at most {limit} are taken at once")
    chunks: list[bytes] = []
    taken = 0
    async for chunk in request.stream():
        taken += len(chunk)
        if taken > limit:
            raise TooLarge(f"the body has more than {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)
