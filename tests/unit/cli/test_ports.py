"""Ports on the user's machine: where one is taken, another is found, and said."""

from __future__ import annotations

import socket

import pytest

from moorage.cli.ports import _listen
from moorage.specs.ports import Port, parse_port
from moorage.units import BadValue


def test_a_port_that_is_taken_is_replaced_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with _listen(Port(8080, taken), "web") as listener:
            host, found = listener.getsockname()
    assert host == "127.0.0.1"
    assert found != taken
    assert capsys.readouterr().err == (
        f"moorage: http://127.0.0.1:{found} is port 8080 of web"
        f" (port {taken} of this machine is taken)\n"
    )


def test_a_free_port_is_taken_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with _listen(Port(8080, None), "web") as listener:
        found = listener.getsockname()[1]
    assert capsys.readouterr().err == f"moorage: http://127.0.0.1:{found} is port 8080 of web\n"


@pytest.mark.parametrize(
    ("text", "port"),
    [("8080", Port(8080, 8080)), ("80:8080", Port(8080, 80)), ("*:6006", Port(6006, None))],
)
def test_ports_are_read_as_they_are_written(text: str, port: Port) -> None:
    assert parse_port(text) == port


@pytest.mark.parametrize("text", ["", "0", "65536", "a:1", "1:*", "1:2:3", "-1", "٣"])
def test_other_texts_are_no_ports(text: str) -> None:
    with pytest.raises(BadValue):
        parse_port(text)
