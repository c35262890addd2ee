"""Buckets in every kind of job, at every kind of place: processes and containers, sub-paths and
single objects, below other mounts, read-only."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import imagebuild
from moorage.protocol.container import Container
from moorage.specs.mounts import Bucket, HostPath
from system.agent_harness import launch

pytestmark = pytest.mark.root


@pytest.fixture
def image(tmp_path: Path) -> str:
    if not imagebuild.BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    path = imagebuild.docker_archive(
        tmp_path / "box.tar", [imagebuild.busybox()], Env=["PATH=/bin"]
    )
    return f"docker-archive:{path}"


@pytest.mark.parametrize("mode", ["mount", "cached"])
@pytest.mark.parametrize("user", [None, "ann"])
@pytest.mark.parametrize("engine", ["moorage", "podman"])
def test_in_containers(buckets: Any, image: str, engine: str, user: str, mode: str) -> None:
    async def main() -> None:
        async with buckets("--engines", engine) as b:
            if (why := b.desk.hellos[-1].isolation.containers) is not None:
                pytest.skip(why)
            b.store.write(b.bucket, "in", b"from the store\n")
            key = await b.desk.start(
                b.launch(
                    "mkfifo /workflow/gate; cat /data/in; echo first; read x < /workflow/gate; "
                    "until cat /data/in; do :; done; mkdir /data/d; echo from the job > /data/d/o",
                    mode=mode,
                    container=Container(image, user=user),
                )
            )
            await b.desk.reaches(key, "staging", "running")
            await b.said(key, "first")
            b.kill_rclone(key)
            await b.desk.until(lambda: "restarted once" in run_detail(b, key))
            gate = b.world.attempt(key) / "work" / "gate"
            await asyncio.to_thread(gate.write_text, "go\n")
            held = await b.desk.done(key)
            assert held.outcome.exit_code == 0, (held.outcome, await b.desk.log(key))
            assert b.store.read(b.bucket, "d/o") == b"from the job\n"
            await b.desk.forget(key)
            assert b.leftovers() == []

    asyncio.run(main())


def run_detail(b: Any, key: str) -> str:
    held = b.desk.held.get(key)
    return next((phase.detail for phase in held.phases if phase.name == "run"), "")


@pytest.mark.parametrize("mode", ["mount", "cached"])
def test_sub_paths_and_single_objects(buckets: Any, tmp_path: Path, mode: str) -> None:
    async def main() -> None:
        async with buckets() as b:
            for key in ("top", "a/b/one [1]*.txt", "a/b/two", "a/c"):
                b.store.write(b.bucket, key, key.encode())
            (tmp_path / "volume").mkdir()

            def bucket(target: str, path: str, **more: Any) -> Bucket:
                return Bucket(target, store="s3", bucket=b.bucket, path=path, mode=mode, **more)

            mounts = [
                HostPath(str(tmp_path / "volume"), "/volume"),
                bucket("/volume/inner", "a/b"),
                bucket("relative/place", "a"),
                bucket("/one.txt", "a/b/one [1]*.txt"),
                bucket("/workflow/renamed", "a/c", read_only=True),
                bucket("/read", "a", read_only=True),
                bucket("/new", "not/there/yet"),
                bucket("~/deep/er", ""),
            ]
            held = await b.desk.run(
                launch(
                    "ls /volume/inner | tr '\\n' ,; ls relative/place | tr '\\n' ,",
                    "cat /one.txt; echo; cat renamed; echo; cat ~/deep/er/top; echo",
                    "echo no 2>/dev/null > /read/c || echo refused; ls /read",
                    "echo no 2>/dev/null > renamed || echo refused",
                    "echo new > /new/file; echo x > ~/deep/er/top2; echo in > /volume/inner/three",
                    "echo rel > relative/place/rel; echo -n over > /one.txt || echo no",
                    mounts=mounts,
                )
            )
            assert held.outcome.exit_code == 0, (held.outcome, await b.desk.log("1.1.0"))
            assert (await b.desk.log("1.1.0")).splitlines() == [
                "one [1]*.txt,two,b,c,a/b/one [1]*.txt", "a/c", "top",
                "refused", "b", "c", "refused",
            ]  # fmt: skip
            assert b.store.listing(b.bucket) == {
                "top": 3, "a/b/one [1]*.txt": 4, "a/b/two": 7, "a/c": 3, "not/there/yet/file": 4,
                "top2": 2, "a/b/three": 3, "a/rel": 4,
            }  # fmt: skip
            assert [path.name for path in (tmp_path / "volume").iterdir()] in ([], ["inner"])
            assert b.leftovers() == []

    asyncio.run(main())


def test_what_is_missing_is_said_in_a_line(buckets: Any) -> None:
    async def main() -> None:
        async with buckets() as b:
            mount = Bucket("/data", store="s3", bucket="no-such-bucket")
            held = await b.desk.run(launch("true", mounts=[mount]))
            assert (held.outcome.kind, held.outcome.phase) == ("phase-failed", "fetch")
            assert held.outcome.message == (
                "/data: there is no bucket no-such-bucket; create it, or correct the name"
            )
            mount = Bucket("/data", store="other", bucket="b1234")
            held = await b.desk.run(launch("true", job=2, mounts=[mount]))
            assert held.outcome.message == "/data: no such store"
            assert b.desk.asked[-1] == "/v1/node/stores/other?attempt=2.1.0"
            assert b.leftovers() == []

    asyncio.run(main())


def test_secrets_are_in_no_list_of_words_and_in_no_open_file(buckets: Any) -> None:
    async def main() -> None:
        async with buckets() as b:
            key = await b.desk.start(b.launch("echo up; exec tail -f /dev/null"))
            await b.said(key, "up")
            secret = b.store.access.secrets["secret_access_key"].encode()
            for place in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    assert secret not in place.read_bytes()
                except OSError:
                    continue
            for path in files_with(secret, b.world.home):
                assert path.stat().st_mode & 0o077 == 0, path
            pid = b.mount(key).find()
            job = b.world.attempt(key)
            assert b"RCLONE" not in (job / "phases.jsonl").read_bytes()
            assert pid
            await b.world.end_keeper()
            await b.desk.done(key)
            await b.desk.forget(key)
            assert files_with(secret, b.world.home) == []

    asyncio.run(main())


def files_with(secret: bytes, top: Path) -> list[Path]:
    """Of those that stay while one looks."""
    found = []
    for directory, _, names in os.walk(top):
        for path in (Path(directory, name) for name in names):
            with suppress(OSError):
                if path.is_file() and secret in path.read_bytes():
                    found.append(path)
    return found
