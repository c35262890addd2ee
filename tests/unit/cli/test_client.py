from __future__ import annotations

import socket
import threading

import pytest

from moorage import Client
from moorage.cli import transport
from moorage.cli.session import talking
from moorage.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable, Unreachable
from moorage.protocol import api
from moorage.specs.task import Task


def summary(number: int, **fields: object) -> api.RunSummary:
    given = {"name": f"run-{number}", "user": "u", "state": "queued", "submitted_at": 1.0}
    return api.RunSummary(id=number, **{**given, **fields})


def view(state: str = "running") -> api.RunView:
    return api.RunView(summary(1, state=state), Task(commands=["true"]), [])


INFO = api.Info("0.1", 1, 0.0, 1, "sqlite", "u", 0, {})


def test_a_connection_is_used_again_and_carries_the_token(scripted, client, Reply):
    scripted.routes["GET /v1/info"] = [Reply(INFO)]
    assert client.info() == INFO
    assert client.info() == INFO
    assert scripted.connections == 1
    assert {r.headers["Authorization"] for r in scripted.seen} == {"Bearer secret"}


def test_a_server_that_is_silent_for_long_is_told_once(monkeypatch, capsys):
    monkeypatch.setattr(transport, "HUSH", 0.05)
    told = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                for _ in range(2):
                    connection.recv(65_536)
                    assert told.wait(60)
                    connection.sendall(b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with talking(Client(url, token="secret")) as client:
            client.transport.on_silence, tell = told.set, client.transport.on_silence
            for _ in range(2):
                with pytest.raises(Unavailable, match="404"):
                    client.info()
            assert client.transport.on_silence is None
            tell()
        thread.join()
    place = url.removeprefix("http://")
    expected = f"moorage: the server on {place} has not answered for 5 s; waiting\n"
    assert capsys.readouterr().err == expected


def test_a_connection_that_the_server_closed_is_opened_anew(scripted, client, Reply):
    scripted.routes["GET /v1/info"] = [Reply(INFO)]
    client.info()
    [idle] = client.transport._idle
    assert idle.sock is not None
    idle.sock.shutdown(socket.SHUT_RDWR)
    assert client.info() == INFO
    assert scripted.connections == 2


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "forbidden", Forbidden),
        (403, "forbidden", Forbidden),
        (404, "not-found", NotFound),
        (409, "conflict", Conflict),
        (422, "invalid", InvalidInput),
        (503, "unavailable", Unavailable),
    ],
)
def test_an_error_body_becomes_the_exception_of_its_code(
    scripted, client, Reply, status, code, kind
):
    scripted.routes["GET /v1/info"] = [Reply(api.ErrorBody(code, "the reason"), status)]
    with pytest.raises(kind, match="the reason") as caught:
        client.info()
    assert type(caught.value) is kind


def test_every_problem_of_an_invalid_request_arrives(scripted, client, Reply):
    body = api.ErrorBody("invalid", "one (and 1 more)", ["one", "two"])
    scripted.routes["POST /v1/runs"] = [Reply(body, 422)]
    with pytest.raises(InvalidInput) as caught:
        client.submit(Task(commands=["true"]))
    assert [str(p) for p in caught.value.problems] == ["one", "two"]


def test_an_error_without_a_body_names_the_status(scripted, client, Reply):
    scripted.routes["GET /v1/info"] = [Reply(b"<html>", 502)]
    with pytest.raises(Unavailable, match="502"):
        client.info()


def test_a_missing_token_is_asked_for_by_the_name_of_its_variable(scripted, Reply):
    body = api.ErrorBody("forbidden", "the Authorization header is not `Bearer TOKEN`")
    scripted.routes["GET /v1/info"] = [Reply(body, 401)]
    with (
        Client(scripted.url, "") as anonymous,
        pytest.raises(Forbidden, match="wants a token; set MOORAGE_TOKEN"),
    ):
        anonymous.info()


def test_a_reply_of_another_version_says_to_upgrade(scripted, client, Reply):
    scripted.routes["GET /v1/info"] = [Reply({"unknown": 1})]
    with pytest.raises(Unavailable, match="upgrade"):
        client.info()


def test_nobody_at_the_port_is_unreachable():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # nobody listens there, and nobody else can
        with Client(f"http://127.0.0.1:{port}", "x") as client, pytest.raises(Unreachable):
            client.info()


@pytest.mark.parametrize("url", ["localhost:80", "ftp://a", "http://", "http://a:port"])
def test_an_address_that_cannot_be_one_is_bad_input(url):
    with pytest.raises(InvalidInput, match="MOORAGE_URL"):
        Client(url, "x")


def test_without_a_server_the_library_says_how_to_start_one(tmp_path, monkeypatch):
    monkeypatch.delenv("MOORAGE_URL", raising=False)
    with pytest.raises(Unreachable, match="moorage server start"):
        Client(home=tmp_path)


def test_the_address_comes_from_the_environment_else_from_the_home(
    scripted, tmp_path, monkeypatch
):
    (tmp_path / "server.json").write_text('{"url": "http://127.0.0.1:9", "pid": 1, "token": "t"}')
    monkeypatch.setenv("MOORAGE_HOME", str(tmp_path))
    monkeypatch.delenv("MOORAGE_URL", raising=False)
    assert Client().address.place == "127.0.0.1:9"
    monkeypatch.setenv("MOORAGE_URL", scripted.url)
    monkeypatch.setenv("MOORAGE_TOKEN", "other")
    assert (Client().address.url, Client().address.token) == (scripted.url, "other")
    assert "other" not in repr(Client().address)


def test_runs_walks_all_pages(scripted, client, Reply):
    def page(request):
        if request.query.get("cursor") == "2":
            return Reply(api.RunPage([summary(1)], 3))
        return Reply(api.RunPage([summary(3), summary(2)], 3, cursor="2"))

    scripted.routes["GET /v1/runs"] = page
    assert [run.id for run in client.runs(active=True)] == [3, 2, 1]
    assert [r.query["active"] for r in scripted.seen] == ["1", "1"]


def test_a_name_with_a_slash_is_one_part_of_the_path(scripted, client, Reply):
    with pytest.raises(NotFound):
        client.run("../info")
    assert scripted.seen[0].path == "/v1/runs/..%2Finfo"


def test_wait_asks_again_until_the_run_has_ended(scripted, client, Reply):
    scripted.routes["GET /v1/runs/1/wait"] = [Reply(view()), Reply(view("failed"))]
    assert client.wait(1).summary.state == "failed"
    assert len(scripted.seen) == 2


def test_wait_with_a_timeout_returns_the_run_as_it_is(scripted, client, Reply):
    scripted.routes["GET /v1/runs/1/wait"] = [Reply(view())]
    assert client.wait(1, timeout=0).summary.state == "running"
    assert len(scripted.seen) == 1


def test_submitting_again_with_the_same_request_id_sends_it(scripted, client, Reply):
    scripted.routes["POST /v1/runs"] = [Reply(api.SubmitReply([api.RunRef(7, "x")]))]
    assert client.submit(Task(commands=["true"]), request_id="abc") == [api.RunRef(7, "x")]
    assert b'"request_id":"abc"' in scripted.seen[0].body


def test_logs_go_on_at_their_offset_when_the_connection_breaks(scripted, client, Reply):
    scripted.routes["GET /v1/runs/1/logs"] = [
        Reply(chunks=[b"one\n", b"two\n"], cut=True),
        Reply(chunks=[b"three\n"], headers={"Moorage-Log-Offset": "8"}),
        Reply(chunks=[], headers={"Moorage-Log-Offset": "14"}),
    ]
    scripted.routes["GET /v1/runs/1/wait"] = [Reply(view("succeeded"))]
    assert b"".join(client.logs(1, follow=True)) == b"one\ntwo\nthree\n"
    assert scripted.seen[1].query["offset"] == "8"


def test_a_reply_that_ends_before_the_run_does_is_asked_for_again(scripted, client, Reply):
    scripted.routes["GET /v1/runs/1/logs"] = [
        Reply(chunks=[b"one\n"]),
        Reply(chunks=[b"two\n"], headers={"Moorage-Log-Offset": "4"}),
        Reply(chunks=[], headers={"Moorage-Log-Offset": "8"}),
    ]
    scripted.routes["GET /v1/runs/1/wait"] = [Reply(view()), Reply(view("failed"))]
    assert b"".join(client.logs(1, follow=True)) == b"one\ntwo\n"
    logs = [r for r in scripted.seen if r.path.endswith("logs")]
    assert [r.query.get("offset") for r in logs] == [None, "4", "8"]


def test_a_server_that_came_back_on_another_port_is_found(scripted, tmp_path, monkeypatch, Reply):
    monkeypatch.delenv("MOORAGE_URL", raising=False)
    path = tmp_path / "server.json"
    path.write_text('{"url": "http://127.0.0.1:1", "pid": 1, "token": "old"}')
    scripted.routes["GET /v1/info"] = [Reply(INFO)]
    with Client(home=tmp_path) as client:
        path.write_text(f'{{"url": "{scripted.url}", "pid": 1, "token": "new"}}')
        assert client.info() == INFO
    assert scripted.seen[0].headers["Authorization"] == "Bearer new"


def test_a_broken_connection_is_an_error_without_follow(scripted, client, Reply):
    scripted.routes["GET /v1/runs/1/logs"] = [Reply(chunks=[b"one\n"], cut=True)]
    with pytest.raises(Unreachable):
        list(client.logs(1))


def test_logs_say_how_much_of_the_beginning_is_gone(scripted, client, Reply):
    scripted.routes["GET /v1/runs/1/logs"] = [
        Reply(chunks=[b"x"], headers={"Moorage-Log-Offset": "4096"})
    ]
    gaps: list[int] = []
    assert list(client.logs(1, on_gap=gaps.append)) == [b"x"]
    assert gaps == [4096]
    gaps.clear()
    assert list(client.logs(1, since=5.0, on_gap=gaps.append)) == [b"x"]
    assert gaps == []


def sse(*numbers: int) -> list[bytes]:
    text = "".join(
        f'id: {n}\ndata: {{"seq":{n},"at":1.0,"kind":"run.submitted"}}\n\n' for n in numbers
    )
    data = (": hello\n\n" + text).encode()
    return [data[:11], data[11:40], data[40:]]


def test_events_resume_after_the_last_one_seen(scripted, client, Reply):
    scripted.routes["GET /v1/events"] = [
        Reply(chunks=sse(4, 5), cut=True),
        Reply(chunks=sse(6)),
    ]
    stream = client.events(follow=True, since=3)
    assert [next(stream).seq for _ in range(3)] == [4, 5, 6]
    assert [r.query["since"] for r in scripted.seen] == ["3", "5"]
    stream.close()


def test_events_are_paged(scripted, client, Reply):
    full = [api.Event(n, 1.0, "x") for n in range(1, 1001)]
    scripted.routes["GET /v1/events"] = [
        Reply(api.EventPage(full)),
        Reply(api.EventPage([api.Event(1001, 1.0, "x")])),
    ]
    assert len(list(client.events())) == 1001
    assert scripted.seen[1].query["since"] == "1000"
