from __future__ import annotations

import errno

import pytest

from moorage.errors import InvalidInput
from moorage.server.main import main, parse, refused


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_loopback_is_allowed(host: str) -> None:
    assert parse(["--host", host]).host in (host, "127.0.0.1")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "", "example.org"])
def test_other_addresses_are_refused_with_the_reason(host: str) -> None:
    with pytest.raises(InvalidInput, match="TLS"):
        parse(["--host", host])


def test_what_the_system_refuses_is_said_with_its_place() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert refused(full, "/home/m") == (
        "/home/m: the disk is full: free some space, then start the server again"
    )
    assert refused(OSError(errno.EACCES, "Permission denied", "/x"), "/h") == (
        "/x: Permission denied"
    )


def test_a_refusal_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", "0.0.0.0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
