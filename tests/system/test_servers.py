"""What users and nodes see of several servers on one database."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedError

from moorage import Client
from moorage.errors import Unreachable
from moorage.protocol.agent import Welcome
from moorage.specs.mounts import Files, HostPath, Mount
from moorage.specs.task import Task
from postgres import Postgres
from system.cli_harness import Command
from system.fleet import Fleet, Member, fleet
from system.servers import SocketAgent


@pytest.fixture
def pair(postgres_server: Postgres, tmp_path: Path) -> Iterator[Fleet]:
    """A leader and a standby, each with a node. A leader that is only slow goes on to lead."""
    with fleet(postgres_server, tmp_path, 2, lease=10.0) as servers:
        yield servers


def command(member: Member) -> Command:
    return Command(member.home)


def succeed(servers: Fleet, lost: Member) -> Member:
    """kill -9 the leader; who leads then."""
    lost.kill()
    lost.ended()
    successor, _ = servers.await_leader(servers.others(lost), 0.0)
    return successor


def test_a_standby_answers_for_the_leader(pair: Fleet) -> None:
    leader, standby = pair.members
    asked = command(standby)
    ran = asked("run", "--name", "through", "--", "echo", "hello from afar")
    assert ran.code == 0, ran.err
    assert ran.out == "hello from afar\n"
    assert "through" in asked("ps", "-a").out
    assert json.loads(asked("show", "through", "--json").out)["summary"]["state"] == "succeeded"
    assert asked("logs", "through").out == "hello from afar\n"
    assert "run.ended" in asked("events", "--run", "through").out
    status = asked("server", "status").out
    assert "role standby, epoch 1" in status
    assert f"{leader.url}  leads" in status
    assert f"{standby.url}  stands by" in status
    secret = standby.database.split("@")[0].rpartition(":")[2]
    assert secret not in status
    assert secret not in standby.log + leader.log


def test_a_standby_sends_agents_to_the_leader(pair: Fleet) -> None:
    leader, standby = pair.members
    with SocketAgent(standby, "elsewhere") as agent:
        with pytest.raises(ConnectionClosedError) as caught:
            agent.receive()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1013, leader.url)
    with SocketAgent(leader, "elsewhere") as agent:
        named = agent.greet().servers
        while len(named) < 2:  # the leader has not looked since the other one came
            named = agent.expect(Welcome).servers
        assert sorted(named) == sorted(m.url for m in pair.members)


def test_nothing_is_forwarded_twice(pair: Fleet) -> None:
    standby = pair.members[1]
    hop = {"Moorage-Hop": "1"}
    refused = standby.call("GET", "/v1/nodes", headers=hop)
    assert refused.status == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["moorage-not-leading"] == "1"
    assert standby.call("GET", "/v1/runs", headers=hop).status == 200, "it knows that itself"


def test_every_token_is_good_everywhere_and_a_wrong_one_nowhere(pair: Fleet) -> None:
    leader, standby = pair.members
    assert leader.token != standby.token
    for member in pair.members:
        for token in (leader.token, standby.token):
            assert member.call("GET", "/v1/runs", token=token).status == 200
            assert member.call("GET", "/v1/nodes", token=token).status == 200
        for path in ("/v1/runs", "/v1/nodes"):
            assert member.call("GET", path, token="wrong").status == 401
            assert member.call("GET", path, token=leader.node_token).status == 403


@pytest.mark.root
def test_output_is_followed_through_a_takeover(pair: Fleet, tmp_path: Path) -> None:
    leader, standby = pair.members
    (tmp_path / "shared").mkdir()
    os.mkfifo(tmp_path / "shared" / "gate")
    mounts: list[Mount] = [HostPath(str(tmp_path / "shared"), "/shared")]
    job = Task(commands=["echo one", "read word < /shared/gate", "echo $word"], mounts=mounts)
    with pair.client() as client, pair.client() as waiter:
        [run] = client.submit(job)
        output = iter(client.logs(run.id, follow=True))
        assert next(output) == b"one\n"
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(waiter.wait, run.id)
            assert succeed(pair, leader) is standby
            gate = os.open(tmp_path / "shared" / "gate", os.O_RDWR)  # never waits for a reader
            os.write(gate, b"two\n")
            assert b"".join(output) == b"two\n"
            view = ended.result(60)
            os.close(gate)
        assert view.summary.state == "succeeded"
        assert [a.attempt for job in client.run(run.id).jobs for a in job.attempts] == [1]
        assert b"".join(client.logs(run.id)) == b"one\ntwo\n"


def test_uploads_outlive_the_server_that_took_them(pair: Fleet, tmp_path: Path) -> None:
    leader, standby = pair.members
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "small").write_text("small and good\n")
    with (tree / "large").open("wb") as file:
        file.seek(40 * 1024 * 1024)
        file.write(os.urandom(1024 * 1024))
    with Client(standby.url, standby.token, standby.home) as client:
        task = client.upload(
            Task(commands=["cat in/small", "wc -c < in/large"], mounts=[Files(str(tree), "in")])
        )
    successor = succeed(pair, leader)
    assert successor is standby
    with pair.client() as client:
        [run] = client.submit(task)
        assert client.wait(run.id, timeout=60).summary.state == "succeeded"
        assert b"".join(client.logs(run.id)) == b"small and good\n42991616\n"
        assert client.upload(task).mounts == task.mounts


def test_a_body_of_64_mib_passes_through(pair: Fleet) -> None:
    standby = pair.members[1]
    octets = {"Content-Type": "application/octet-stream"}
    reply = standby.call("POST", "/v1/blobs/packs", bytes(64 * 1024 * 1024), headers=octets)
    assert reply.status == 422, reply.body  # it arrived, and is no pack
    over = standby.call("POST", "/v1/blobs/packs", bytes(64 * 1024 * 1024 + 1), headers=octets)
    assert over.status == 413, over.body


def test_a_client_that_leaves_ends_the_forwarded_request(pair: Fleet) -> None:
    standby = pair.members[1]
    lasting = standby.connection()
    lasting.request(
        "GET", "/v1/events?follow=1", headers={"Authorization": f"Bearer {standby.token}"}
    )
    stream = lasting.getresponse()
    assert stream.read1(64).startswith(b": events follow")
    stream.close()
    lasting.close()
    assert standby.stop() == 0, "nothing holds it up"
    standby.ended()


def test_without_any_server_a_client_says_so_in_time(
    pair: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.cli.transport.PATIENCE", 1.0)
    with pair.client() as client:
        for member in pair.members:
            member.kill()
            member.ended()
        with pytest.raises(Unreachable, match="no server could answer"):
            client.nodes()


def test_the_database_is_remembered_and_never_replaced_by_an_empty_one(
    own_postgres: Postgres, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    url = own_postgres.new_database()
    asked = Command(home, {"MOORAGE_DATABASE": url})
    assert asked("server", "start").code == 0
    assert stat.S_IMODE((home / "server" / "database").stat().st_mode) == 0o600
    assert asked("server", "stop").code == 0
    own_postgres.stop()
    plain = Command(home)
    refused = plain("ps")
    assert refused.code == 5
    assert "PostgreSQL" in refused.err
    assert not (home / "server" / "moorage.db").exists()
    own_postgres.start()
    assert plain("ps").code == 0
    assert "postgresql://" in plain("server", "status").out
    plain.end()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--database", "postgresql://me:secret@127.0.0.1/x"], "a password in --database"),
        (["--database", "mysql://127.0.0.1/x"], "neither sqlite nor"),
        (["--database", "postgresql://127.0.0.1:x/y"], "not the URL of a database"),
        (["--node-name", "a b"], "no name for a node"),
    ],
)
def test_a_wrong_choice_is_one_line_and_changes_nothing(
    tmp_path: Path, words: list[str], reason: str
) -> None:
    for verb in ("start", "run"):
        refused = Command(tmp_path / "home")("server", verb, *words)
        assert refused.code == 2, refused
        assert reason in refused.err
        assert "secret" not in refused.err
        assert refused.err.count("\n") == 1
    assert not (tmp_path / "home" / "server" / "database").exists()
    assert not (tmp_path / "home" / "server.json").exists()
