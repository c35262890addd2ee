from __future__ import annotations

import socket
import subprocess

import pytest

from moorage import loopback
from moorage.loopback import stranger


@pytest.fixture(params=["asked", "looked up"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of knowing must say the same."""
    if request.param == "looked up":
        monkeypatch.setattr(loopback, "_asked", lambda *_: None)


@pytest.mark.parametrize(
    ("family", "listens", "dialled"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
)
def test_a_port_of_ours(family: socket.AddressFamily, listens: str, dialled: str) -> None:
    try:
        listener = socket.create_server(
            (listens, 0), family=family, dualstack_ipv6=listens == "::"
        )
    except OSError as error:
        pytest.skip(f"this machine has no {listens}: {error}")
    with listener, socket.create_connection((dialled, listener.getsockname()[1])) as connection:
        assert stranger(connection) is None


def test_a_port_that_was_let_go() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    with connection, accepted:
        assert "nobody listens" in str(stranger(connection))


LISTEN = (
    "import socket, sys; s = socket.create_server(('127.0.0.1', 0));"
    "print(s.getsockname()[1], flush=True); sys.stdin.read()"
)


@pytest.mark.root
def test_a_port_of_another_user() -> None:
    uid = 12345
    other = subprocess.Popen(
        ["setpriv", f"--reuid={uid}", "--clear-groups", "/usr/bin/python3", "-c", LISTEN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
    )
    with other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as connection:
            assert stranger(connection) == f"port {port} is now user {uid}'s"
        assert other.stdin is not None
        other.stdin.close()
