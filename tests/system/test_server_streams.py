"""What lasts: events, waiting, output, the agent's socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from moorage.engine.testing import hello
from moorage.protocol.agent import (
    CancelRead,
    DropLogs,
    Held,
    LogData,
    Outcome,
    Probe,
    ProbeResult,
    ReadLog,
    Report,
    Start,
    Stop,
)
from system.servers import PATIENCE, Server, SocketAgent, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as started:
        yield started


class Events:
    """A stream of server-sent events."""

    def __init__(self, server: Server, query: str = "", headers: dict[str, str] | None = None):
        self.connection = server.connection()
        sent = {"Authorization": f"Bearer {server.token}", **(headers or {})}
        self.connection.request("GET", f"/v1/events?follow=1{query}", headers=sent)
        self.response: HTTPResponse = self.connection.getresponse()
        assert self.response.status == 200
        assert self.response.getheader("content-type", "").startswith("text/event-stream")
        assert self.response.readline().startswith(b":"), "open, though nothing happened yet"
        self.response.readline()

    def next(self) -> dict[str, Any]:
        """The next event, with the id that the stream gave it."""
        fields: dict[str, str] = {}
        while line := self.response.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            fields[name] = value
        event: dict[str, Any] = json.loads(fields["data"])
        assert fields["id"] == str(event["seq"])
        assert fields["event"] == event["kind"]
        return event

    def close(self) -> None:
        self.response.close()
        self.connection.close()


def test_events_come_as_they_happen_and_go_on_where_they_broke(server: Server) -> None:
    first = Events(server)
    server.submit("a", name="aa")
    seen = [first.next(), first.next()]
    assert [e["kind"] for e in seen] == ["run.submitted", "job.queued"]
    first.close()
    server.submit("b", name="bb")
    second = Events(server, headers={"Last-Event-ID": str(seen[-1]["seq"])})
    resumed = second.next()
    assert (resumed["kind"], resumed["run_name"]) == ("run.submitted", "bb")
    assert resumed["seq"] == seen[-1]["seq"] + 1
    second.close()
    bad = server.call("GET", "/v1/events?follow=1", headers={"Last-Event-ID": "x"})
    assert bad.status == 422


def test_events_of_one_run(server: Server) -> None:
    server.submit("a", name="aa")
    server.submit("b", name="bb")
    only = Events(server, "&run=bb&since=0")
    assert [only.next()["run_name"], only.next()["run_name"]] == ["bb", "bb"]
    only.close()
    page = server.call("GET", "/v1/events?run=aa&limit=1").json["events"]
    assert [e["run_name"] for e in page] == ["aa"]
    following = server.call("GET", f"/v1/events?since={page[0]['seq']}&run=aa").json["events"]
    assert [e["kind"] for e in following] == ["job.queued"]


def test_wait_ends_with_the_run(server: Server) -> None:
    with SocketAgent(server) as agent:
        agent.greet()
        number = server.submit()
        agent.expect(Start)
        early = server.call("GET", f"/v1/runs/{number}/wait?timeout=0.05").json
        assert early["summary"]["state"] == "starting"
        replies: list[Any] = []
        waiting = threading.Thread(
            target=lambda: replies.append(server.call("GET", f"/v1/runs/{number}/wait?timeout=30"))
        )
        waiting.start()
        agent.report(Held("1.1.0", "done", outcome=Outcome("exited", exit_code=7)))
        waiting.join(PATIENCE)
        summary = replies[0].json["summary"]
        assert (summary["state"], summary["exit_code"]) == ("failed", 7)


# Output


def answer(agent: SocketAgent, data: bytes, *, ended: bool = False, first: int = 0) -> ReadLog:
    """Answer one question as an agent that has `data` would."""
    asked = agent.expect(ReadLog)
    offset = max(min(asked.offset, first + len(data)), first)
    page = data[offset - first :][: asked.limit]
    over = ended and offset + len(page) >= first + len(data)
    agent.send(LogData(asked.request, offset, page, ended=over))
    return asked


class Reading:
    """A request for output, under way."""

    def __init__(self, server: Server, query: str) -> None:
        self.connection = server.connection()
        headers = {"Authorization": f"Bearer {server.token}"}
        self.connection.request("GET", f"/v1/runs/1/logs?{query}", headers=headers)

    def response(self) -> HTTPResponse:
        return self.connection.getresponse()

    def close(self) -> None:
        self.connection.close()


def test_output_of_a_run_that_ended(server: Server) -> None:
    with SocketAgent(server) as agent:
        agent.greet()
        server.submit()
        agent.expect(Start)
        agent.report(Held("1.1.0", "done", outcome=Outcome("exited", exit_code=0)))
        server.call("GET", "/v1/runs/1/wait")
        reading = Reading(server, "offset=2")
        answer(agent, b"hello", ended=True)
        answer(agent, b"hello", ended=True)
        response = reading.response()
        assert response.getheader("Moorage-Log-Offset") == "2"
        assert response.read() == b"llo"
        reading.close()


def test_following_waits_for_the_start_and_spans_attempts(server: Server) -> None:
    with SocketAgent(server) as agent:
        agent.greet()
        server.submit(retry={})
        reading = Reading(server, "follow=1")
        asked = answer(agent, b"one\n")  # may be asked before the start comes
        assert asked.key == "1.1.0"
        response = reading.response()
        assert response.getheader("Moorage-Log-Offset") == "0"
        assert response.readline() == b"one\n"
        asked = agent.expect(ReadLog)
        assert asked.wait
        assert asked.offset == 4
        agent.report(Held("1.1.0", "done", outcome=Outcome("exited", exit_code=1)))
        agent.send(LogData(asked.request, 4, b"", ended=True))
        started = asked_again = False
        while not (started and asked_again):  # in any order
            message = agent.receive()
            if isinstance(message, Start) and message.launch.attempt == 2:
                started = True
            if isinstance(message, ReadLog) and message.key == "1.1.0":
                agent.send(LogData(message.request, 4, b"", ended=True))
            elif isinstance(message, ReadLog):
                assert (message.key, message.offset) == ("1.2.0", 4 * asked_again)
                rest = b"" if asked_again else b"two\n"
                agent.send(LogData(message.request, message.offset, rest, ended=True))
                asked_again = True
        assert response.readline() == b"two\n"
        agent.report(Held("1.2.0", "done", outcome=Outcome("exited", exit_code=0)))
        ended = threading.Event()
        last: list[bytes] = []
        reader = threading.Thread(target=lambda: (last.append(response.read()), ended.set()))
        reader.start()
        while not ended.is_set():
            try:
                answer_all(agent)
            except TimeoutError:
                continue
        reader.join()
        assert last == [b""]
        reading.close()


def answer_all(agent: SocketAgent) -> None:
    """Say that nothing more comes, to whoever asks within a moment."""
    message = agent.receive(timeout=0.2)
    if isinstance(message, ReadLog):
        agent.send(LogData(message.request, message.offset, b"", ended=True))


def test_an_offset_beyond_the_first_attempt_lies_in_the_second(server: Server) -> None:
    with SocketAgent(server) as agent:
        agent.greet()
        server.submit(retry={})
        agent.expect(Start)
        agent.report(Held("1.1.0", "done", outcome=Outcome("exited", exit_code=1)))
        agent.expect(Start)
        reading = Reading(server, "offset=6")
        assert answer(agent, b"one\n", ended=True).key == "1.1.0"
        second = answer(agent, b"two\n")
        assert (second.key, second.offset) == ("1.2.0", 2)
        answer(agent, b"two\n")
        response = reading.response()
        assert response.getheader("Moorage-Log-Offset") == "6"
        assert response.read() == b"o\n"
        reading.close()


def test_a_reader_that_leaves_is_cancelled_at_the_agent(server: Server) -> None:
    with SocketAgent(server) as agent:
        agent.greet()
        server.submit()
        agent.expect(Start)
        reading = Reading(server, "follow=1")
        answer(agent, b"one\n")
        response = reading.response()
        assert response.readline() == b"one\n"
        asked = agent.expect(ReadLog)
        response.close()
        reading.close()
        assert agent.expect(CancelRead).request == asked.request


def test_output_on_a_lost_node(server: Server) -> None:
    with SocketAgent(server) as agent:
        agent.greet()
        server.submit()
        agent.expect(Start)
        down = Events(server)
    assert down.next()["kind"] == "node.down"
    down.close()
    reply = server.call("GET", "/v1/runs/1/logs")
    assert reply.status == 503
    assert "not connected" in reply.json["message"]
    reading = Reading(server, "follow=1")
    response = reading.response()
    with SocketAgent(server) as agent:
        agent.greet(Held("1.1.0", "running"))
        answer(agent, b"back\n")
        assert response.readline() == b"back\n"
    response.close()
    reading.close()


def test_a_stop_breaks_output_off_rather_than_ending_it(server: Server) -> None:
    with SocketAgent(server) as agent:
        agent.greet()
        server.submit()
        agent.expect(Start)
        reading = Reading(server, "follow=1")
        answer(agent, b"one\n")
        response = reading.response()
        assert response.readline() == b"one\n"
        agent.expect(ReadLog)
        server.stop()
        with pytest.raises(IncompleteRead):
            response.read()
        reading.close()


# Agents


def test_a_node_is_seen_used_and_lost(server: Server) -> None:
    with SocketAgent(server, "worker") as agent:
        agent.greet()
        server.submit(resources={"cpu": {"count": {"min": 2, "max": 2}}})
        agent.expect(Start)
        [node] = server.call("GET", "/v1/nodes").json["nodes"]
        assert (node["name"], node["state"], node["used_cpus"], node["jobs"]) == (
            ("worker", "up", 2.0, 1)
        )
        following = Events(server)
    assert following.next()["kind"] == "node.down"
    following.close()
    [node] = server.call("GET", "/v1/nodes").json["nodes"]
    assert node["state"] == "down"


def test_a_newer_connection_closes_the_older(server: Server) -> None:
    with SocketAgent(server) as older, SocketAgent(server) as newer:
        older.greet()
        newer.greet()
        with pytest.raises(ConnectionClosed, match="newer"):
            while True:
                older.receive()
        server.submit()
        newer.expect(Start)


@pytest.mark.parametrize("kind", ["garbage", "text", "no hello", "another version"])
def test_what_no_agent_says_is_refused(server: Server, kind: str) -> None:
    from msgspec.structs import replace

    with SocketAgent(server) as agent:
        match kind:
            case "garbage":
                agent.socket.send(b"\xc1\xc1")
            case "text":
                agent.socket.send("hello")
            case "no hello":
                agent.send(Report(1, []))
            case _:
                agent.send(replace(hello("n1"), protocol=99))
        with pytest.raises(ConnectionClosed) as closed:
            agent.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1002
        assert closed.value.rcvd.reason
    assert server.call("GET", "/v1/health").status == 200


def test_stop_and_delete_reach_the_agent(server: Server) -> None:
    with SocketAgent(server) as agent:
        agent.greet()
        server.submit(stop_duration=5)
        agent.expect(Start)
        reply = server.call("POST", "/v1/runs/1/stop").json
        assert reply["stopping"]
        assert agent.expect(Stop).grace == 5
        agent.report(Held("1.1.0", "done", outcome=Outcome("stopped")))
        assert server.call("GET", "/v1/runs/1/wait").json["summary"]["state"] == "cancelled"
        assert server.call("DELETE", "/v1/runs/1").status == 200
        assert agent.expect(DropLogs).keys == ["1.1.0"]


def plan_with(server: Server, agent: SocketAgent, body: dict[str, Any]) -> Any:
    """A plan for which the agent is asked."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.call, "POST", "/v1/plan", body)
        probe = agent.expect(Probe)
        assert probe.launch.commands == ["true"]
        agent.send(ProbeResult(probe.request, ["no such volume"], ["slow disk"]))
        [plan] = asked.result(PATIENCE).json["runs"]
    return plan


def test_plan_asks_the_nodes(server: Server) -> None:
    with SocketAgent(server) as agent:
        agent.greet()
        body = {"runs": [{"spec": {"type": "task", "commands": ["true"]}}]}
        plan = plan_with(server, agent, body)
        while plan.get("not_asked"):  # this process had no second to answer in
            plan = plan_with(server, agent, body)
        assert plan["problems"] == ["on n1: no such volume"]
        [node] = plan["nodes"]
        assert (node["fits"], node["free_now"], node["notes"]) == (False, True, ["slow disk"])
        never = {"count": {"min": 1000}}
        body["runs"][0]["spec"]["resources"] = {"cpu": never}
        assert server.call("POST", "/v1/runs", {"request_id": "x", **body}).status == 422
