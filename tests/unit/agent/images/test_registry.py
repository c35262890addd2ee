"""Pulls from a registry that runs here: accounts, tags, one pull for many, what is broken off."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import imagebuild
import registry
from imagebuild import layer, member
from moorage.agent.images import registry as image_registry
from moorage.agent.images.registry import Registry
from moorage.agent.images.store import Images
from moorage.agent.node import isolation
from moorage.data import stopping
from moorage.data.base import SourceError
from moorage.protocol.container import Container
from moorage.specs.container import Reference, RegistryAuth


@pytest.fixture(autouse=True)
def _containers(tmp_path: Path) -> None:
    if (why := isolation.probe(tmp_path).containers) is not None:
        pytest.skip(why)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registry.Registry]:
    with registry.serve(tmp_path_factory.mktemp("registry"), account=True) as found:
        yield found


def pull(
    place: Path, name: str, number: int = 1, password: str | None = registry.PASSWORD
) -> Path:
    auth = None if password is None else RegistryAuth(registry.ACCOUNT, password)
    attempt = place / "attempts" / str(number)
    attempt.mkdir(parents=True, exist_ok=True)
    images = Images(place / "images", place / "attempts")
    root = images.prepare(Container(name, auth=auth), attempt, lambda text: None).root
    assert root is not None
    return root


def push(hub: registry.Registry, repository: str, *layers: bytes, tag: str = "1") -> str:
    manifest, blobs = imagebuild.blobs(layers)
    hub.push(repository, tag, manifest, blobs)
    return hub.name(f"{repository}:{tag}")


def test_a_pull(tmp_path: Path, hub: registry.Registry) -> None:
    name = push(hub, "team/a", layer(member("a", b"1")), layer(member("b", b"2")))
    root = pull(tmp_path, name)
    assert [(root / one).read_text() for one in "ab"] == ["1", "2"]
    assert not list((tmp_path / "images" / "layers").iterdir())


def test_a_tag_that_moves(tmp_path: Path, hub: registry.Registry) -> None:
    name = push(hub, "moves", layer(member("a", b"old")))
    assert (pull(tmp_path, name) / "a").read_text() == "old"
    push(hub, "moves", layer(member("a", b"new")))
    assert (pull(tmp_path, name) / "a").read_text() == "new"


@pytest.mark.parametrize(
    ("repository", "password", "message"),
    [
        ("team/b:1", "wrong", "the registry refuses the account of registry_auth"),
        ("team/b:1", None, "the registry wants an account; add `registry_auth:`"),
        ("team/none:1", registry.PASSWORD, "team/none:1 does not exist; check its name and tag"),
        ("team/b:2", registry.PASSWORD, "team/b:2 does not exist; check its name and tag"),
    ],
)
def test_refusals(
    tmp_path: Path, hub: registry.Registry, repository: str, password: str | None, message: str
) -> None:
    push(hub, "team/b", layer(member("a", b"1")))
    with pytest.raises(SourceError, match=message) as caught:
        pull(tmp_path, hub.name(repository), password=password)
    assert registry.PASSWORD not in str(caught.value)


def test_many_jobs_pull_once(tmp_path: Path, hub: registry.Registry) -> None:
    content = layer(member("a", os.urandom(200_000)))
    name = push(hub, "many", content)
    images = Images(tmp_path / "images", tmp_path / "attempts")
    auth = RegistryAuth(registry.ACCOUNT, registry.PASSWORD)

    def get(number: int) -> None:
        attempt = tmp_path / "attempts" / str(number)
        attempt.mkdir(parents=True)
        images.prepare(Container(name, auth=auth), attempt, lambda text: None)

    threads = [threading.Thread(target=get, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list((tmp_path / "images" / "roots").iterdir())) == 1


def test_a_layer_goes_on_where_it_broke_off(tmp_path: Path, hub: registry.Registry) -> None:
    content = os.urandom(300_000)
    manifest, blobs = imagebuild.blobs([layer(member("a", content))], bytes)
    hub.push("half", "1", manifest, blobs)
    digest, pressed = max(blobs.items(), key=lambda item: len(item[1]))
    half = tmp_path / "images" / "layers" / digest.removeprefix("sha256:")
    half.parent.mkdir(parents=True)
    half.write_bytes(pressed[:100_000])
    assert (pull(tmp_path, hub.name("half:1")) / "a").read_bytes() == content
    (tmp_path / "images").rename(tmp_path / "first")
    half.parent.mkdir(parents=True)
    half.write_bytes(b"something else")
    assert (pull(tmp_path, hub.name("half:1"), 2) / "a").read_bytes() == content


def test_a_registry_that_is_gone(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with registry.serve(tmp_path_factory.mktemp("gone")) as hub:
        name = push(hub, "kept", layer(member("a", b"1")))
        pull(tmp_path, name, password=None)
    assert (pull(tmp_path, name, password=None) / "a").read_text() == "1"
    with pytest.raises(SourceError, match="cannot be reached: Connection refused"):
        pull(tmp_path, hub.name("other:1"), password=None)


class Slow(http.server.BaseHTTPRequestHandler):
    """Half of each layer comes, and then nothing."""

    manifest: bytes
    blobs: dict[str, bytes]
    stalled = threading.Event()
    over = threading.Event()

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        content = self.blobs.get(name, self.manifest)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if len(content) < 10_000:
            self.wfile.write(content)
            return
        self.wfile.write(content[: len(content) // 2])
        self.stalled.set()
        self.over.wait(60)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_who_is_stopped_does_not_wait_for_a_slow_registry(tmp_path: Path) -> None:
    Slow.manifest, Slow.blobs = imagebuild.blobs([layer(member("a", os.urandom(100_000)))])
    stopper = stopping.Stopper()
    said: list[str] = []

    def get(name: str) -> None:
        stopping.current.set(stopper)
        try:
            pull(tmp_path, name, password=None)
        except SourceError as error:
            said.append(str(error))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        pulling = threading.Thread(target=get, args=(f"127.0.0.1:{server.server_port}/a:1",))
        pulling.start()
        assert Slow.stalled.wait(30)
        stopper.stop()
        pulling.join(50)
        waits = pulling.is_alive()
        Slow.over.set()
        server.shutdown()
        serving.join()
    assert not waits
    assert said == ["stopped"]


class TokenHub(http.server.BaseHTTPRequestHandler):
    """Wants a token, which it gives out itself; `given` is what its token server says."""

    given = b""

    def do_GET(self) -> None:
        if self.path.startswith("/token?"):
            self._answer(200, self.given)
        elif self.headers["Authorization"] == "Bearer sesame":
            self._answer(200, b"{}")
        else:
            self._answer(401, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        realm = f"http://127.0.0.1:{self.connection.getsockname()[1]}/token"
        self.send_header("WWW-Authenticate", f'Bearer realm="{realm}",service="hub"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def token_hub(given: bytes) -> Iterator[str]:
    handler = type("Hub", (TokenHub,), {"given": given})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("given", [b'{"token": "sesame"}', b'{"access_token": "sesame"}'])
def test_a_registry_that_wants_a_token(given: bytes) -> None:
    with token_hub(given) as host:
        found = Registry(Reference(host, "team/box", "1"), None).digest()
    assert found == f"sha256:{hashlib.sha256(b'{}').hexdigest()}"


@pytest.mark.parametrize("given", [b"[]", b"{}", b'{"token": 7}', b"no json"])
def test_a_token_server_that_gives_none(given: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_registry, "_PAUSES", ())
    with token_hub(given) as host, pytest.raises(SourceError, match="the token server"):
        Registry(Reference(host, "team/box", "1"), None).digest()
