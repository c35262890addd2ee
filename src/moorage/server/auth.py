"""Who may call what, and under which host names."""

from __future__ import annotations

from moorage.errors import Forbidden, Unavailable
from moorage.server.tokens import Kind, Principal


class Unauthorized(Forbidden):
    """The request carries no token, or one that nobody owns."""


class TooMany(Unavailable):
    """More unknown tokens come than are looked up."""


def bearer(header: str | None) -> str:
    """The token of `Authorization: Bearer ...`; Unauthorized without one."""
    if not header:
        raise Unauthorized("no token: send `Authorization: Bearer TOKEN`")
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("the Authorization header is not `Bearer TOKEN`")
    return token.strip()


def unknown() -> Unauthorized:
    """What a token that nobody owns gets."""
    return Unauthorized("unknown token: it may belong to another server or home directory")


def authorize(principal: Principal, allowed: frozenset[Kind]) -> None:
    """Forbidden unless tokens of this kind may come here."""
    if principal.kind not in allowed:
        raise Forbidden(f"a {principal.kind} token cannot be used here")


def host_name(header: str) -> str:
    """The name in a Host header, without its port, lower case."""
    header = header.strip().lower()
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0]


LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


def is_own_host(header: str | None) -> bool:
    """Whether the request was meant for a server on loopback.

    A web page can point a name of its own at 127.0.0.1 and then talk to this server as if to its
    own site (DNS rebinding); its requests still carry that name.
    """
    return header is not None and host_name(header) in LOOPBACK_NAMES
