from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from moorage import Client
from moorage.cli import transport
from moorage.cli.home import checked
from moorage.errors import Unavailable, Unreachable
from moorage.protocol import api
from moorage.specs.task import Task

INFO = api.Info("0.1", 1, 0.0, 1, "postgresql", "u", 0, {})
SOON = api.ErrorBody("unavailable", "no server leads at present")


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens, nor can anybody else meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_several_addresses_are_one():
    address = checked("https://a:1/, https://b:1", "t")
    assert (address.url, address.others) == ("https://a:1", ("https://b:1",))


def test_the_next_server_is_asked_and_kept(scripted, nobody, Reply):
    scripted.routes["GET /v1/info"] = [Reply(INFO)]
    with Client(f"{nobody},{scripted.url}", "x") as client:
        assert client.info() == INFO
        assert client.address.url == scripted.url
        assert client.info() == INFO
    assert scripted.connections == 1


def test_a_refusal_that_will_pass_is_asked_again(scripted, nobody, Reply):
    scripted.routes["GET /v1/info"] = [Reply(SOON, 503, headers={"Retry-After": "1"}), Reply(INFO)]
    with Client(f"{scripted.url},{nobody}", "x") as client:
        assert client.info() == INFO


def test_a_refusal_that_will_not_pass_is_an_error(scripted, client, Reply):
    scripted.routes["GET /v1/info"] = [Reply(SOON, 503), Reply(INFO)]
    with pytest.raises(Unavailable):
        client.info()


def test_a_submit_is_repeated_with_its_request_id(scripted, client, Reply):
    soon = Reply(SOON, 503, headers={"Retry-After": "1"})
    scripted.routes["POST /v1/runs"] = [soon, Reply(api.SubmitReply([api.RunRef(1, "x")]))]
    client.submit(Task(commands=["true"]))
    first, second = scripted.seen
    assert first.body == second.body


def test_what_may_have_been_done_is_not_done_twice(scripted, client, Reply):
    soon = Reply(SOON, 503, headers={"Retry-After": "1"})
    scripted.routes["DELETE /v1/runs/1"] = [soon]
    with pytest.raises(Unavailable):
        client.delete(1)
    assert len(scripted.seen) == 1


def test_what_was_surely_not_done_is_asked_again(scripted, client, Reply):
    headers = {"Retry-After": "1", "Moorage-Not-Leading": "1"}
    summary = api.RunSummary(1, "x", "u", "failed", 1.0)
    scripted.routes["DELETE /v1/runs/1"] = [Reply(SOON, 503, headers=headers), Reply(summary)]
    assert client.delete(1) == summary


def test_without_any_server_it_ends_in_time(nobody, monkeypatch):
    monkeypatch.setattr(transport, "PATIENCE", 0.3)
    with (
        Client(f"{nobody},{nobody.replace('127.0.0.1', 'localhost')}", "x") as client,
        pytest.raises(Unreachable, match="no server could answer"),
    ):
        client.info()
