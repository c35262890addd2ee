from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from system.servers import PATIENCE, Server, serving
from testbed.stores import free_ports


def test_a_home_is_made_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with serving(home) as server:
        for secret in ("server.json", "server/token", "agent/token", "server/moorage.db"):
            assert stat.S_IMODE((home / secret).stat().st_mode) == 0o600, secret
        for directory in ("server", "agent"):
            assert stat.S_IMODE((home / directory).stat().st_mode) == 0o700, directory
        written = json.loads((home / "server.json").read_text())
        assert server.process is not None
        assert written["pid"] == server.process.pid
        assert server.token not in (home / "server.log").read_text()
        assert server.token.encode() not in (home / "server" / "moorage.db").read_bytes()
    assert not (home / "server.json").exists()


def test_a_stop_is_clean_and_quick(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.submit()
        lasting = server.connection()
        lasting.request(
            "GET", "/v1/events?follow=1", headers={"Authorization": f"Bearer {server.token}"}
        )
        stream = lasting.getresponse()
        assert server.stop() == 0, "no follower holds a server up"
        stream.read()
        lasting.close()


def keep_port(home: Path) -> None:
    """A server of this home begins on a port that the kernel gives to no connection while the
    server is away."""
    (home / "server").mkdir(mode=0o700)
    (home / "server" / "port").write_text(str(free_ports(1)[0]))


def test_acknowledged_submissions_survive_kill_9(tmp_path: Path) -> None:
    keep_port(tmp_path)
    server = Server(tmp_path)
    server.start()

    def submit(number: int) -> tuple[int, int]:
        return number, server.submit(f"request-{number}", name=f"run-{number}")

    with ThreadPoolExecutor(8) as pool:
        acknowledged = dict(pool.map(submit, range(40)))
    server.kill()
    assert (tmp_path / "server.json").exists(), "a killed server cannot tidy up"
    before = server.url
    with serving(tmp_path) as restarted:
        assert restarted.url == before, "agents and clients find the new one"
        for number, run in acknowledged.items():
            view = restarted.call("GET", f"/v1/runs/run-{number}").json
            assert view["summary"]["id"] == run
            assert view["summary"]["state"] == "queued"
            assert restarted.submit(f"request-{number}", name=f"run-{number}") == run
        assert restarted.call("GET", "/v1/runs").json["total"] == 40
        assert restarted.call("GET", "/v1/info").json["epoch"] == 2


def test_a_second_server_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert server.process is not None
        second = subprocess.run(
            [sys.executable, "-m", "moorage.server.main", "--home", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode == 1
        assert str(server.process.pid) in second.stderr
        assert second.stderr.count("\n") == 1, second.stderr
        assert server.call("GET", "/v1/health").status == 200
        assert (tmp_path / "server.json").exists()


def test_a_token_lives_on_and_a_lost_one_is_revoked(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        first = server.token
    with serving(tmp_path) as server:
        assert server.token == first
    (tmp_path / "server" / "token").unlink()
    with serving(tmp_path) as server:
        assert server.token != first
        assert server.call("GET", "/v1/runs", token=first).status == 401
        assert server.call("GET", "/v1/runs").status == 200


def test_a_wanted_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with serving(tmp_path / "a") as server:
        port = server.url.rpartition(":")[2]
        with pytest.raises(AssertionError, match="--port"):
            Server(tmp_path / "b", ["--no-node", "--port", port]).start()


def test_the_last_port_that_is_taken_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "server").mkdir(parents=True)
    with serving(tmp_path / "a") as first:
        (tmp_path / "b" / "server" / "port").write_text(first.url.rpartition(":")[2])
        with serving(tmp_path / "b") as second:
            assert second.url != first.url


def test_interrupt_stops_it_too(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.start()
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGINT)
    assert server.process.wait(PATIENCE) == 0


def test_a_damaged_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir(mode=0o700)
    (tmp_path / "server" / "moorage.db").write_bytes(b"this is no database" * 400)
    with pytest.raises(AssertionError, match=r"moorage\.db"):
        Server(tmp_path).start()
    lines = (tmp_path / "server.log").read_text().splitlines()
    assert len(lines) == 1, lines


def test_a_disk_that_fails_ends_the_server_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.start()
    assert server.process is not None
    first = server.submit("before", name="before")
    # From now on no file may grow: for the database that is a full disk.
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, 1))
    body = {"request_id": "after", "runs": [{"spec": {"type": "task", "commands": ["true"]}}]}
    refused = server.call("POST", "/v1/runs", body)
    assert refused.status == 503, refused.body
    assert server.process.wait(PATIENCE) == 1
    with serving(tmp_path) as restarted:
        assert restarted.call("GET", "/v1/runs/before").json["summary"]["id"] == first
        assert restarted.call("GET", "/v1/runs").json["total"] == 1
        assert restarted.call("POST", "/v1/runs", body).status == 200


def agent_of(home: Path) -> int:
    return int((home / "agent" / "lock").read_text())


def wait_for_node(server: Server, *, since: int = 0) -> None:
    connection = server.connection()
    headers = {"Authorization": f"Bearer {server.token}"}
    connection.request("GET", f"/v1/events?follow=1&since={since}", headers=headers)
    response = connection.getresponse()
    while b"event: node.up" not in (line := response.readline()):
        assert line, "the server ended"
    response.close()
    connection.close()


def test_agent_and_job_outlive_a_killed_server(tmp_path: Path) -> None:
    keep_port(tmp_path)
    server = Server(tmp_path, [])
    server.start()
    wait = "mkfifo $MOORAGE_SCRATCH/gate; echo $MOORAGE_SCRATCH/gate; cat $MOORAGE_SCRATCH/gate"
    try:
        wait_for_node(server)
        server.submit(name="patient", commands=[f"{wait}; echo ended"])
        reply = server.call("GET", "/v1/events?limit=1000")
        seen = reply.json["events"][-1]["seq"]
        connection = server.connection()
        headers = {"Authorization": f"Bearer {server.token}"}
        connection.request("GET", "/v1/runs/patient/logs?follow=1", headers=headers)
        response = connection.getresponse()
        gate = Path(response.readline().decode().strip())
        agent = agent_of(tmp_path)
        server.kill()
        response.close()
        connection.close()

        server.start()
        wait_for_node(server, since=seen)
        assert agent_of(tmp_path) == agent, "adopted, not replaced"
        gate.write_text("through\n")
        view = server.call("GET", "/v1/runs/patient/wait?timeout=60").json
        assert view["summary"]["state"] == "succeeded"
        assert [a["attempt"] for a in view["jobs"][0]["attempts"]] == [1]
        output = server.call("GET", "/v1/runs/patient/logs")
        assert output.body.endswith(b"gate\nthrough\nended\n")
        assert server.stop() == 0
        with open(tmp_path / "agent" / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it: the agent ended
    finally:
        server.kill()
        for name in ("agent/lock", "agent/keeper.pid"):
            with suppress(OSError, ValueError):
                os.kill(int((tmp_path / name).read_text()), signal.SIGKILL)
