from __future__ import annotations

import pytest

from moorage.errors import Forbidden
from moorage.server import auth
from moorage.server.tokens import Principal

USER = Principal("user", "ada")
NODE = Principal("node", "local")


def test_the_scheme_is_read_in_any_case() -> None:
    assert auth.bearer("Bearer secret") == "secret"
    assert auth.bearer("bearer  other") == "other"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic secret", "secret"])
def test_anything_else_is_refused_without_repeating_it(header: str | None) -> None:
    with pytest.raises(auth.Unauthorized) as caught:
        auth.bearer(header)
    assert "secret" not in str(caught.value)


def test_kinds_are_kept_apart() -> None:
    auth.authorize(USER, frozenset({"user"}))
    with pytest.raises(Forbidden, match="node token"):
        auth.authorize(NODE, frozenset({"user"}))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:99", "[::1]"])
def test_loopback_names(host: str) -> None:
    assert auth.is_own_host(host)


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]"]
)
def test_other_names(host: str | None) -> None:
    assert not auth.is_own_host(host)
