from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import pytest
from blake3 import blake3

from moorage.protocol import packs, tree
from moorage.protocol.tree import Entry, Manifest
from moorage.server.routes import ROUTES
from moorage.server.routes.agent import AGENT_PATH
from moorage.server.table import AnyRoute
from system.servers import Server, serving

DIGEST = "0" * 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("home")) as started:
        yield started


def path_of(route: AnyRoute) -> str:
    return route.path.format(ref="1", digest=DIGEST, name="lab", store="s3")


def spec(**fields: Any) -> dict[str, Any]:
    return {"spec": {"type": "task", "commands": ["true"], **fields}}


def submission(request_id: str, *runs: dict[str, Any]) -> dict[str, Any]:
    return {"request_id": request_id, "runs": list(runs)}


# Who may do what: for every route of the table, so that none is open by accident


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
class TestAccess:
    def test_without_a_token(self, server: Server, route: AnyRoute) -> None:
        reply = server.call(route.method, path_of(route), token="")
        assert (reply.status == 401) == bool(route.access), reply.body
        if route.access:
            assert reply.json["code"] == "forbidden"
            assert reply.headers["www-authenticate"] == "Bearer"
        else:
            assert reply.status == 200
            assert route.path in ("/v1/health", "/v1/openapi.json")

    def test_with_an_unknown_token(self, server: Server, route: AnyRoute) -> None:
        reply = server.call(route.method, path_of(route), token="moorage_user_wrong")
        assert (reply.status == 401) == bool(route.access)
        assert b"moorage_user_wrong" not in reply.body

    def test_with_the_token_of_a_node(self, server: Server, route: AnyRoute) -> None:
        reply = server.call(route.method, path_of(route), token=server.node_token)
        allowed = not route.access or "node" in route.access
        assert (reply.status == 403) == (not allowed), reply.body


def upgrade(server: Server, token: str) -> int:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    return server.call("GET", AGENT_PATH, token=token, headers=headers).status


def test_only_nodes_connect_as_agents(server: Server) -> None:
    assert upgrade(server, "") == 401
    assert upgrade(server, "wrong") == 401
    assert upgrade(server, server.token) == 403


def test_other_hosts_are_refused(server: Server) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example"):
        reply = server.call("GET", "/v1/health", headers={"Host": host})
        assert reply.status == 403, host
        assert reply.json["code"] == "forbidden"
    assert server.call("GET", "/v1/health", headers={"Host": "localhost:1"}).status == 200
    allowed = server.call("GET", "/v1/health", headers={"Origin": "http://evil.example"})
    assert not any(name.startswith("access-control") for name in allowed.headers)


def test_request_ids_are_echoed_or_made(server: Server) -> None:
    given = server.call("GET", "/v1/health", headers={"X-Request-Id": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    made = server.call("GET", "/v1/health", headers={"X-Request-Id": "x" * 200})
    assert len(made.headers["x-request-id"]) == 16
    assert server.call("GET", "/v1/nothing").headers["x-request-id"]


# What is not a request


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/v1/nothing", None, 404, "/v1/nothing"),
        ("PATCH", "/v1/runs", None, 405, "PATCH"),
        ("POST", "/v1/health", None, 405, "POST"),
        ("POST", "/v1/runs", b"{", 400, "JSON"),
        ("POST", "/v1/runs", b"", 400, "JSON"),
        ("POST", "/v1/runs", b"\xff\xfe", 400, "JSON"),
        ("POST", "/v1/runs", {"request_id": 1, "runs": []}, 400, "request_id"),
        ("POST", "/v1/runs", {"request_id": "a", "runs": [], "x": 1}, 400, "x"),
        ("POST", "/v1/runs", {"request_id": "a"}, 400, "runs"),
        ("POST", "/v1/runs", {"request_id": "a", "runs": [spec()] * 10_001}, 400, "10000"),
        ("POST", "/v1/runs", {"request_id": "a", "runs": []}, 422, "nothing"),
        ("POST", "/v1/runs", {"request_id": "", "runs": [spec()]}, 422, "request_id"),
        ("GET", "/v1/runs?limit=0", None, 400, "limit"),
        ("GET", "/v1/runs?limit=5000", None, 400, "limit"),
        ("GET", "/v1/runs?limit=x", None, 400, "limit"),
        ("GET", "/v1/runs?limit=1&limit=2", None, 400, "limit"),
        ("GET", "/v1/runs?state=odd", None, 400, "odd"),
        ("GET", "/v1/runs?colour=red", None, 400, "colour"),
        ("GET", "/v1/runs?cursor=bad", None, 422, "cursor"),
        ("GET", "/v1/runs/nobody", None, 404, "nobody"),
        ("GET", "/v1/runs/99999999999999999999999", None, 404, "9999"),
        ("GET", "/v1/runs/nobody/logs", None, 404, "nobody"),
        ("GET", "/v1/runs/nobody/wait", None, 404, "nobody"),
        ("GET", "/v1/runs/1/wait?timeout=61", None, 400, "timeout"),
        ("POST", "/v1/runs/nobody/stop", None, 404, "nobody"),
        ("DELETE", "/v1/runs/nobody", None, 404, "nobody"),
        ("GET", "/v1/events?run=nobody", None, 404, "nobody"),
        ("GET", "/v1/events?since=-1", None, 400, "since"),
        ("PUT", "/v1/blobs/xyz?offset=0&size=1", b"a", 400, "digest"),
        ("PUT", f"/v1/blobs/{DIGEST}", b"a", 400, "offset"),
        ("POST", "/v1/blobs/packs", b"garbage", 422, "pack"),
        ("POST", "/v1/blobs/fetch", {"digests": [DIGEST]}, 404, DIGEST),
        ("POST", "/v1/blobs/missing", {"digests": ["x"]}, 422, "digest"),
    ],
)
def test_refusals_say_why(
    server: Server, method: str, path: str, body: Any, status: int, said: str
) -> None:
    headers = {"Content-Type": "application/json"} if isinstance(body, bytes) else {}
    if path.startswith(("/v1/blobs/packs", "/v1/blobs/0", "/v1/blobs/x")):
        headers = {"Content-Type": "application/octet-stream"}
    reply = server.call(method, path, body, headers=headers)
    assert reply.status == status, reply.body
    assert said in reply.json["message"]


def test_a_wrong_type_names_its_place(server: Server) -> None:
    reply = server.call("POST", "/v1/runs", submission("x", spec(), spec(priority="high")))
    assert reply.status == 400
    assert "runs[1].spec.priority" in reply.json["message"]


def test_other_media_are_refused(server: Server) -> None:
    reply = server.call("POST", "/v1/runs", b"a: 1", headers={"Content-Type": "text/yaml"})
    assert reply.status == 415


def test_large_bodies_are_refused_before_they_are_read(server: Server) -> None:
    connection = server.connection()
    connection.putrequest("POST", "/v1/blobs/packs")
    connection.putheader("Authorization", f"Bearer {server.token}")
    connection.putheader("Content-Length", str(65 * 1024 * 1024))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


# Runs


def test_of_many_that_wait_the_first_and_the_last_say_for_what(server: Server) -> None:
    body = submission("a-long-line", *(spec(name=f"many-{n}") for n in range(150)))
    runs = [run["id"] for run in server.call("POST", "/v1/runs", body).json["runs"]]
    page = server.call("GET", "/v1/runs?active=1&limit=1000").json["runs"]
    said = {run["name"] for run in page if run.get("waits_for")}
    assert {"many-0", "many-40", "many-149"} <= said
    assert len(said) == 100
    for run in runs:
        server.call("POST", f"/v1/runs/{run}/stop")


def test_submit_show_list_stop_delete(server: Server) -> None:
    body = submission("s1", spec(name="first", tags={"a": "b"}), spec())
    reply = server.call("POST", "/v1/runs", body)
    first, second = reply.json["runs"]
    assert first["name"] == "first"
    assert second["name"].count("-") == 2
    assert server.call("POST", "/v1/runs", body).json == reply.json
    view = server.call("GET", "/v1/runs/first").json
    assert view["summary"]["tags"] == {"a": "b"}
    assert view["jobs"][0]["waits_for"]
    assert server.call("DELETE", "/v1/runs/first").status == 409
    clash = server.call("POST", "/v1/runs", submission("s2", spec(name="first")))
    assert clash.status == 409
    assert clash.json["code"] == "conflict"
    stopped = server.call("POST", f"/v1/runs/{first['id']}/stop")
    assert stopped.json["state"] == "cancelled"
    again = server.call("POST", f"/v1/runs/{first['id']}/stop", {"abort": True})
    assert again.json["state"] == "cancelled"
    assert server.call("GET", "/v1/runs/first/wait?timeout=5").json["summary"]["ended_at"]
    deleted = server.call("DELETE", "/v1/runs/first")
    assert deleted.json["id"] == first["id"]
    assert server.call("GET", "/v1/runs/first").status == 404
    assert server.call("GET", f"/v1/runs/{second['id']}/logs").body == b""


def test_every_problem_is_reported(server: Server) -> None:
    bad = spec(
        name="Bad Name",
        priority=500,
        commands=[],
        mounts=[
            {"type": "files", "source": "a", "target": "a"},
            {"type": "repo", "source": ".", "target": "b"},
        ],
    )
    reply = server.call("POST", "/v1/runs", submission("p1", bad))
    assert reply.status == 422
    text = "\n".join(reply.json["problems"])
    for word in ("name", "priority", "commands", "mounts[0]", "mounts[1]"):
        assert word in text
    plan = server.call("POST", "/v1/plan", {"runs": [bad]}).json["runs"][0]
    assert len(plan["problems"]) >= 5


def test_pages_show_every_run_once(server: Server) -> None:
    numbers = [server.submit(f"page-{n}", tags={"of": "paging"}) for n in range(25)]
    seen: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        path = f"/v1/runs?limit=10&active=1{f'&cursor={cursor}' if cursor else ''}"
        page = server.call("GET", path).json
        seen += [run["id"] for run in page["runs"]]
        cursor = page.get("cursor")
        if cursor and len(seen) == 10:
            server.submit("page-late")
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen))
    assert set(numbers) <= set(seen)


def test_one_request_id_many_times_at_once(server: Server) -> None:
    body = submission("many", spec(), spec())
    before = server.call("GET", "/v1/runs").json["total"]
    with ThreadPoolExecutor(25) as pool:
        replies = list(pool.map(lambda _: server.call("POST", "/v1/runs", body).json, range(50)))
    assert all(reply == replies[0] for reply in replies)
    assert server.call("GET", "/v1/runs").json["total"] == before + 2


def test_plan_without_a_node(server: Server) -> None:
    plan = server.call("POST", "/v1/plan", {"runs": [spec()]}).json["runs"][0]
    assert plan["nodes"] == []
    assert plan["waits_for"]
    assert any("node" in warning for warning in plan["warnings"])
    never = server.call("POST", "/v1/plan", {"runs": [spec(fleets=["nowhere"])]}).json["runs"][0]
    assert any("there is no fleet nowhere" in problem for problem in never["problems"])
    assert "warnings" not in never


# Content


def packed(*contents: bytes) -> tuple[bytes, list[str]]:
    from backports import zstd

    pack, digests = b"", []
    for content in contents:
        digest = blake3(content).hexdigest()
        frame = zstd.compress(content)
        pack += packs.header(digest, len(frame), len(content)) + frame
        digests.append(digest)
    return pack, digests


def test_a_tree_must_be_whole_before_a_run_may_name_it(server: Server) -> None:
    content = b"hello"
    entry = Entry("a.txt", "file", digest=blake3(content).hexdigest(), size=len(content))
    manifest = tree.encode(Manifest([entry]))
    root = blake3(manifest).hexdigest()
    mount = {"type": "files", "source": "a", "target": "a", "tree": root}
    body = submission("tree", spec(mounts=[mount]))
    refused = server.call("POST", "/v1/runs", body)
    assert refused.status == 422
    assert root in refused.json["message"]
    plan = server.call("POST", "/v1/plan", {"runs": [spec(mounts=[mount])]}).json["runs"][0]
    assert plan["missing_blobs"] == [root]

    octets = {"Content-Type": "application/octet-stream"}
    pack, [digest] = packed(manifest)
    assert server.call("POST", "/v1/blobs/packs", pack, headers=octets).json == {"stored": 1}
    assert server.call("POST", "/v1/runs", body).status == 422, "its file is missing still"
    pack, [digest] = packed(content)
    server.call("POST", "/v1/blobs/packs", pack, headers=octets)
    asked = {"digests": [digest], "trees": [root]}
    assert server.call("POST", "/v1/blobs/missing", asked).json == {"digests": [], "trees": []}
    assert server.call("POST", "/v1/runs", body).status == 200

    fetched = server.call(
        "POST", "/v1/blobs/fetch", {"digests": [digest]}, token=server.node_token
    )
    assert fetched.body == pack
    for dry_run in (1, 0):
        reply = server.call("POST", f"/v1/collect?dry_run={dry_run}").json
        assert {key: value for key, value in reply.items() if value} == {}


def test_a_large_blob_arrives_in_parts(server: Server) -> None:
    content = bytes(range(256)) * 1000
    digest = blake3(content).hexdigest()
    half = len(content) // 2
    path = f"/v1/blobs/{digest}"
    octets = {"Content-Type": "application/octet-stream"}
    size = f"&size={len(content)}"
    first = server.call("PUT", f"{path}?offset=0{size}", content[:half], headers=octets)
    assert first.json == {"received": half, "complete": False}
    assert server.call("GET", f"{path}/part").json == first.json
    last = server.call("PUT", f"{path}?offset={half}{size}", content[half:], headers=octets)
    assert last.json == {"received": len(content), "complete": True}


# A spec that no client of ours would send


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({"comands": ["x"]}, 400, "comands"),
        ({"resources": {"cpus": 4}}, 400, "cpus"),
        ({"mounts": [{"type": "host", "source": "/a", "target": "/b", "ro": True}]}, 400, "ro"),
        ({"schedule": {"cron": []}}, 422, "schedule.cron"),
        ({"resources": {"memory": {"max": 1e300}}}, 422, "resources.memory"),
        ({"resources": {"shm_size": 10**30}}, 422, "resources.shm_size"),
        ({"max_duration": 1e300}, 422, "max_duration"),
        ({"env": {"A": "\0"}}, 422, "env"),
        ({"mounts": [{"type": "host", "source": "..", "target": "/b"}]}, 422, "volumes"),
    ],
)
def test_a_hostile_spec_is_refused(
    server: Server, fields: dict[str, Any], status: int, word: str
) -> None:
    reply = server.call("POST", "/v1/runs", submission("hostile", spec(**fields)))
    assert reply.status == status, reply.body
    assert word in reply.json["message"]
    assert server.call("GET", "/v1/health").status == 200


def test_plan_and_submit_say_the_same(server: Server) -> None:
    server.submit("taken-1", name="taken")
    for bad in (spec(name="taken"), spec(commands=["${{ run.nme }}"])):
        said = server.call("POST", "/v1/plan", {"runs": [bad]}).json["runs"][0]["problems"]
        refusal = server.call("POST", "/v1/runs", submission("taken-2", bad)).json
        assert refusal["problems"] == said


@pytest.mark.parametrize(
    "opening",
    [
        b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nX-Long: ",
        b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        b"GET /",
    ],
    ids=["header", "trailer", "path"],
)
def test_headers_without_end_are_refused(server: Server, opening: bytes) -> None:
    connection = server.connection()
    connection.connect()
    with closing(connection.sock) as raw:
        with suppress(ConnectionError):
            raw.sendall(opening)
            for _ in range(64):
                raw.sendall(b"x" * 65536)
        with suppress(ConnectionError):
            while raw.recv(65536):
                pass
    assert server.call("GET", "/v1/health").status == 200


def test_a_number_that_is_none_is_a_problem_of_the_plan(server: Server) -> None:
    asked = spec(resources={"cpu": {"count": {"min": 1e308}}})
    reply = server.call("POST", "/v1/plan", {"runs": [asked]})
    assert reply.status == 200, reply.body
    assert "resources.cpu" in reply.json["runs"][0]["problems"][0]
