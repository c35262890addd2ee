"""Stores and buckets through the API of a real server, against SeaweedFS."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from moorage import Client
from moorage.protocol.agent import Ack, Held, Outcome, Start
from moorage.protocol.api import Event
from moorage.specs.stores.record import Access
from system.servers import Reply, Server, SocketAgent, serving
from testbed.stores import StoreServer

NAME = "lab"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "home").mkdir(0o700)
    with serving(tmp_path / "home") as started:
        yield started


def declaration(access: Access, name: str = NAME, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": access.kind,
        "endpoint": access.endpoint,
        "region": access.region,
        "path_style": access.path_style,
        "secrets": access.secrets,
        **changes,
    }


@pytest.fixture
def declared(server: Server, seaweed: StoreServer) -> Server:
    reply = server.call("POST", "/v1/stores", declaration(seaweed.access))
    assert reply.status == 200, reply.body
    return server


def mount(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "bucket", "target": "/data", "store": NAME, "bucket": name, **fields}


def submit(server: Server, *mounts: dict[str, Any], request_id: str = "r", **spec: Any) -> Reply:
    task = {"type": "task", "commands": ["true"], "mounts": list(mounts), **spec}
    return server.call("POST", "/v1/runs", {"request_id": request_id, "runs": [{"spec": task}]})


def plan(server: Server, *mounts: dict[str, Any]) -> dict[str, Any]:
    task = {"type": "task", "commands": ["true"], "mounts": list(mounts)}
    reply = server.call("POST", "/v1/plan", {"runs": [{"spec": task}]})
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json["runs"][0]
    return found


def storage(server: Server, name: str) -> dict[str, Any]:
    reply = server.call("GET", f"/v1/storages/{name}")
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json
    return found


def delete(server: Server, name: str) -> Reply:
    return server.call("DELETE", f"/v1/storages/{name}?timeout=60")


def fresh(seaweed: StoreServer) -> str:
    """A name that no bucket has."""
    return f"made-{os.urandom(6).hex()}"


# Declaring


def test_a_store_is_declared_and_shown_without_its_secrets(
    declared: Server, seaweed: StoreServer
) -> None:
    for path in ("/v1/stores", f"/v1/stores/{NAME}"):
        reply = declared.call("GET", path)
        assert reply.status == 200
        assert seaweed.access.secrets["secret_access_key"].encode() not in reply.body
    shown = declared.call("GET", f"/v1/stores/{NAME}").json
    assert shown["credentials"] == "stored"
    assert shown["default"] is True
    checked = declared.call("POST", f"/v1/stores/{NAME}/check").json
    assert "problem" not in checked
    assert checked["buckets"] >= 0


def test_the_secret_is_nowhere_in_the_home(declared: Server, seaweed: StoreServer) -> None:
    name = seaweed.make_bucket()
    assert submit(declared, mount(name)).status == 200
    declared.stop()
    secret = seaweed.access.secrets["secret_access_key"].encode()
    files = [path for path in declared.home.rglob("*") if path.is_file()]
    assert any(path.name == "moorage.db" for path in files)
    assert [path for path in files if secret in path.read_bytes()] == []
    key = declared.home / "server" / "secrets.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_store_survives_a_restart(declared: Server, seaweed: StoreServer) -> None:
    declared.kill()
    declared.start()
    found = declared.call("GET", f"/v1/stores/{NAME}/access")
    assert msgspec.json.decode(found.body, type=Access) == seaweed.access
    assert found.headers["cache-control"] == "no-store"


def test_without_its_key_a_store_says_what_to_do(declared: Server) -> None:
    declared.stop()
    (declared.home / "server" / "secrets.key").unlink()
    declared.start()
    reply = declared.call("GET", f"/v1/stores/{NAME}/access")
    assert reply.status == 409
    assert "MOORAGE_SECRETS_KEY_FILE" in reply.json["message"]
    assert "cannot be read" in declared.call("GET", f"/v1/stores/{NAME}").json["problem"]
    again = declared.call(
        "POST",
        "/v1/stores",
        {"name": "other", "kind": "s3", "secrets": {"access_key_id": "a",
                                                    "secret_access_key": "b"}},
    )  # fmt: skip
    assert again.status == 409, "a second key would leave each server half of the stores"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "s3"}, "cannot be the name of a store"),
        ({"name": "default"}, "cannot be the name of a store"),
        ({"name": "La b"}, "La b cannot be the name of a store; use up to 41 lowercase"),
        (
            {"kind": "azure", "endpoint": ""},
            "nothing says where Azure Blob Storage is; add --account",
        ),
        ({"kind": "minio"}, "is no kind of store"),
        ({"kind": "moorage"}, "is no kind of store"),
        ({"endpoint": "minio:9000"}, "is no address of a store"),
        ({"endpoint": "https://key:secret@minio"}, "is no address of a store"),
        ({"secrets": {"password": "x"}}, "is no secret of a store"),
        ({"secrets": {"access_key_id": "x"}}, "secret_access_key is missing"),
        ({"anonymous": True}, "has no secrets"),
        ({"role": "admin"}, "is no role"),
    ],
)
def test_a_wrong_declaration_is_refused(
    server: Server, seaweed: StoreServer, changes: dict[str, Any], told: str
) -> None:
    reply = server.call("POST", "/v1/stores", declaration(seaweed.access, **changes))
    assert reply.status == 422
    assert told in reply.json["message"]
    assert not any(one["declared"] for one in server.call("GET", "/v1/stores").json["stores"])


def test_a_store_in_use_is_not_forgotten(declared: Server, seaweed: StoreServer) -> None:
    name = fresh(seaweed)
    reply = declared.call("POST", "/v1/storages", {"name": name})
    assert reply.status == 200, reply.body
    refused = declared.call("DELETE", f"/v1/stores/{NAME}")
    assert refused.status == 409
    assert name in refused.json["message"]
    assert delete(declared, name).json == {"name": name, "state": "deleted"}
    assert declared.call("DELETE", f"/v1/stores/{NAME}").status == 200
    assert declared.call("DELETE", f"/v1/stores/{NAME}").status == 404


# What stands against a run


def test_an_unknown_store_is_named_with_what_to_do(declared: Server) -> None:
    found = plan(declared, mount("b", store="lap"))
    [problem] = found["problems"]
    assert problem.startswith("mounts[0]: there is no store lap; did you mean lab?")
    assert "moorage store add lap" in problem
    reply = submit(declared, mount("b", store="lap"))
    assert reply.status == 422


def test_a_missing_bucket_is_a_problem_of_the_plan(declared: Server) -> None:
    [problem] = plan(declared, mount("not-there-at-all"))["problems"]
    assert problem.startswith("mounts[0]: there is no bucket lab://not-there-at-all; check")
    assert submit(declared, mount("not-there-at-all")).status == 422


def test_a_path_that_is_read_must_be_there(declared: Server, seaweed: StoreServer) -> None:
    name = seaweed.make_bucket()
    seaweed.write(name, "set/one", b"123")
    assert "nothing at" in plan(declared, mount(name, path="sett", mode="copy"))["problems"][0]
    [data] = plan(declared, mount(name, path="set", mode="copy"))["data"]
    assert (data["objects"], data["bytes"]) == (1, 3)
    [data] = plan(declared, mount(name, path="set/one", mode="copy"))["data"]
    assert (data["uri"], data["bytes"]) == (f"lab://{name}/set/one", 3)
    assert "problems" not in plan(declared, mount(name, path="results"))


def test_a_plan_leaves_nothing_in_the_bucket(declared: Server, seaweed: StoreServer) -> None:
    name = seaweed.make_bucket()
    assert "problems" not in plan(declared, mount(name))
    assert seaweed.listing(name) == {}
    managed = fresh(seaweed)
    [data] = plan(declared, mount(managed, managed=True))["data"]
    assert data["will_make"] is True
    assert managed not in seaweed.buckets()


def test_wrong_keys_are_told_without_the_secret(server: Server, seaweed: StoreServer) -> None:
    secrets = {"access_key_id": "nobody", "secret_access_key": "wrong-secret-of-nobody"}
    wrong = declaration(seaweed.access, secrets=secrets)
    assert server.call("POST", "/v1/stores", wrong).status == 200
    name = seaweed.make_bucket()
    [problem] = plan(server, mount(name))["problems"]
    assert "access denied (InvalidAccessKeyId)" in problem
    assert "wrong-secret" not in problem
    checked = server.call("POST", f"/v1/stores/{NAME}/check").json
    assert "access denied" in checked["problem"]


def test_an_endpoint_that_does_not_answer_is_named_soon(
    server: Server, own_seaweed: StoreServer
) -> None:
    assert server.call("POST", "/v1/stores", declaration(own_seaweed.access)).status == 200
    name = own_seaweed.make_bucket()
    own_seaweed.freeze()
    try:
        [problem] = plan(server, mount(name, target="/a"))["problems"]
    finally:
        own_seaweed.thaw()
    assert f"store lab at {own_seaweed.endpoint} cannot be reached" in problem
    own_seaweed.kill()
    reply = submit(server, mount(name))
    assert reply.status == 422
    assert own_seaweed.endpoint in reply.json["message"]


def test_a_name_that_is_taken_says_what_to_write(declared: Server, seaweed: StoreServer) -> None:
    name = seaweed.make_bucket()
    [problem] = plan(declared, mount(name, managed=True))["problems"]
    assert f"write `source: lab://{name}` instead of `name: {name}`" in problem
    made = declared.call("POST", "/v1/storages", {"name": name})
    assert made.status == 409
    assert "moorage storage adopt" in made.json["message"]


# Buckets with a name


def test_a_managed_bucket_is_made_at_submit_and_stays(
    declared: Server, seaweed: StoreServer
) -> None:
    name = fresh(seaweed)
    reply = submit(declared, mount(name, managed=True, store=""))
    assert reply.status == 200, reply.body
    assert name in seaweed.buckets()
    run = reply.json["runs"][0]
    shown = storage(declared, name)
    assert shown["state"] == "ready"
    assert shown["used_by"] == [run]
    assert shown["made_by"] == run["id"]
    spec = declared.call("GET", f"/v1/runs/{run['id']}").json["spec"]
    assert spec["mounts"][0]["store"] == NAME, "the run keeps its store, whatever the default"
    refused = delete(declared, name)
    assert refused.status == 409
    assert run["name"] in refused.json["message"]
    declared.call("POST", f"/v1/runs/{run['id']}/stop", {"abort": True})
    assert storage(declared, name).get("used_by", []) == []
    assert name in seaweed.buckets()
    seaweed.write(name, "a/b", b"x")
    assert delete(declared, name).json["state"] == "deleted"
    assert name not in seaweed.buckets()
    assert declared.call("GET", f"/v1/storages/{name}").status == 404


def test_a_bucket_that_is_not_to_stay_goes_with_its_last_run(
    declared: Server, seaweed: StoreServer
) -> None:
    name = fresh(seaweed)
    once = mount(name, managed=True, persistent=False)
    first = submit(declared, once, request_id="1").json["runs"][0]["id"]
    second = submit(declared, once, request_id="2").json["runs"][0]["id"]
    seaweed.write(name, "kept/for/now", b"x")
    declared.call("POST", f"/v1/runs/{first}/stop", {"abort": True})
    assert storage(declared, name)["state"] == "ready"
    declared.call("POST", f"/v1/runs/{second}/stop", {"abort": True})
    until(declared, "storage.deleted", name)
    assert name not in seaweed.buckets()


def until(server: Server, kind: str, name: str) -> Event:
    """Wait for an event of a storage, from the first that there was."""
    with Client(server.url, server.token, server.home) as client:
        for event in client.events(since=0, follow=True):
            if event.kind == kind and event.data.get("storage") == name:
                return event
    raise AssertionError(f"no {kind} of {name} came")


def test_a_deletion_goes_on_after_kill_9(declared: Server, own_seaweed: StoreServer) -> None:
    own = declaration(own_seaweed.access, name="own")
    assert declared.call("POST", "/v1/stores", own).status == 200
    name = fresh(own_seaweed)
    once = mount(name, store="own", managed=True, persistent=False)
    reply = submit(declared, once)
    assert reply.status == 200, reply.body
    own_seaweed.kill()
    declared.call("POST", f"/v1/runs/{reply.json['runs'][0]['id']}/stop", {"abort": True})
    until(declared, "storage.trouble", name)
    declared.kill()
    own_seaweed.start()
    declared.start()
    until(declared, "storage.deleted", name)
    assert name not in own_seaweed.buckets()


def test_what_moorage_did_not_make_is_only_forgotten(
    declared: Server, seaweed: StoreServer
) -> None:
    name = seaweed.make_bucket()
    adopted = declared.call("POST", "/v1/storages", {"name": name, "adopt": True})
    assert adopted.status == 200, adopted.body
    assert "problems" not in plan(declared, mount(name, managed=True))
    gone = delete(declared, name).json
    assert gone["state"] == "forgotten"
    assert "did not make it" in gone["message"]
    assert name in seaweed.buckets()


def test_one_that_others_deleted_is_made_again(declared: Server, seaweed: StoreServer) -> None:
    name = fresh(seaweed)
    assert declared.call("POST", "/v1/storages", {"name": name}).status == 200
    seaweed.rclone("purge", f"X:{name}")
    found = plan(declared, mount(name, managed=True))
    assert "was deleted, and not by moorage" in found["warnings"][0]
    [listed] = named(declared, name)
    assert listed["state"] == "missing"
    assert submit(declared, mount(name, managed=True)).status == 200
    assert name in seaweed.buckets()
    assert storage(declared, name)["state"] == "ready"


def named(server: Server, name: str) -> list[dict[str, Any]]:
    page = server.call("GET", "/v1/storages?check=1").json
    assert "problems" not in page, page
    return [one for one in page["storages"] if one["bucket"] == name]


def test_a_list_says_what_the_store_says(declared: Server, seaweed: StoreServer) -> None:
    name, other = fresh(seaweed), seaweed.make_bucket()
    assert declared.call("POST", "/v1/storages", {"name": name}).status == 200
    seaweed.write(name, "a", b"12345")
    seaweed.write(name, "b/c", b"12345")
    [mine] = named(declared, name)
    assert (mine["state"], mine["objects"], mine["bytes"]) == ("ready", 2, 10)
    [theirs] = named(declared, other)
    assert theirs["state"] == "foreign"
    page = declared.call("GET", "/v1/storages").json["storages"]
    assert [one["name"] for one in page] == [name]


def test_two_stores_cannot_share_a_name(declared: Server, seaweed: StoreServer) -> None:
    assert declared.call("POST", "/v1/stores", declaration(seaweed.access, "two")).status == 200
    name = fresh(seaweed)
    body = {"name": name, "store": NAME}
    assert declared.call("POST", "/v1/storages", body).status == 200
    [problem] = plan(declared, mount(name, managed=True, store="two"))["problems"]
    assert f"storage {name} is in store lab, not in two" in problem
    assert "write `store: lab`" in problem


def test_a_wrong_name_is_refused(declared: Server) -> None:
    reply = declared.call("POST", "/v1/storages", {"name": "Not_Allowed"})
    assert reply.status == 422
    assert "no bucket may be called Not_Allowed" in reply.json["message"]


# Access of nodes


def test_a_node_gets_access_for_its_own_live_attempt_only(
    declared: Server, seaweed: StoreServer
) -> None:
    name = seaweed.make_bucket()
    with SocketAgent(declared) as node:
        node.greet()
        reply = submit(declared, mount(name))
        assert reply.status == 200, reply.body
        start = node.expect(Start)
        launch = start.launch
        assert b"moorage-test-secret" not in msgspec.msgpack.encode(start)
        key = f"{launch.job}.{launch.attempt}.0"
        path = f"/v1/node/stores/{NAME}?attempt={key}"
        got = declared.call("GET", path, token=declared.node_token)
        assert msgspec.json.decode(got.body, type=Access) == seaweed.access
        default = path.replace(f"/{NAME}?", "/default?")
        assert declared.call("GET", default, token=declared.node_token).body == got.body
        assert declared.call("GET", path).status == 403, "a user's token is for users"
        for wrong in (f"{launch.job}.2.0", f"{launch.job + 1}.1.0", "x", "1.1.1.1"):
            other = f"/v1/node/stores/{NAME}?attempt={wrong}"
            assert declared.call("GET", other, token=declared.node_token).status == 403
        unnamed = path.replace(f"/{NAME}?", "/s3?")
        assert declared.call("GET", unnamed, token=declared.node_token).status == 403
        node.report(Held(key, "done", outcome=Outcome("exited", exit_code=0)))
        node.expect(Ack)
        assert declared.call("GET", path, token=declared.node_token).status == 403


def test_an_attempt_that_is_not_flushed_keeps_its_bucket_and_its_access(
    declared: Server, seaweed: StoreServer
) -> None:
    name = fresh(seaweed)
    with SocketAgent(declared) as node:
        node.greet()
        assert submit(declared, mount(name, managed=True, persistent=False)).status == 200
        launch = node.expect(Start).launch
        key = f"{launch.job}.{launch.attempt}.0"
        node.report(Held(key, "done", outcome=Outcome("not-flushed", message="2 files")))
        node.expect(Ack)
        assert storage(declared, name)["unflushed"] == [key]
        assert name in seaweed.buckets()
        path = f"/v1/node/stores/{NAME}?attempt={key}"
        assert declared.call("GET", path, token=declared.node_token).status == 200
        declared.kill()
        declared.start()
    assert storage(declared, name)["unflushed"] == [key]
    away = declared.call("POST", f"/v1/runs/{launch.run}/flush").json["attempts"]
    assert [one["state"] for one in away] == ["away"]


def test_rows_are_sealed(declared: Server, seaweed: StoreServer) -> None:
    declared.stop()
    with closing(sqlite3.connect(declared.home / "server" / "moorage.db")) as database:
        [(sealed,)] = database.execute("SELECT secrets FROM stores")
    assert len(sealed.partition(":")[0]) == 12
    assert seaweed.access.secrets["access_key_id"] not in sealed
