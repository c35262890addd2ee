"""`durable: fsync`: what `fsync` has returned for is in the bucket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import imagebuild
from moorage.data.objects.bucket import open_bucket
from moorage.protocol.agent import ReadLog, Stop
from moorage.protocol.container import Container
from moorage.specs.mounts import CacheOptions

pytestmark = pytest.mark.root

PROGRAM = """
import os, sys
def told(word):
    print(word, flush=True)
    with open("/workflow/go") as go:
        go.read()
"""


def program(text: str) -> str:
    """A command: `told(word)` prints it, and waits until the test lets it `go`."""
    return f"mkfifo /workflow/go; exec {sys.executable} -c {shlex.quote(PROGRAM + text)}"


def go(b: Any, key: str) -> None:
    descriptor = os.open(b.world.attempt(key) / "work" / "go", os.O_WRONLY)
    os.close(descriptor)


async def said(b: Any, key: str, word: str, times: int = 1) -> str:
    """What the job has printed, when that word is there so often; or when it has ended."""
    text = b""
    while text.count(word.encode()) < times:
        page = await b.desk.ask(ReadLog(11, key, len(text), wait=True))
        text += page.data
        assert not page.ended, text.decode()
    return text.decode()


def clerks_of(b: Any, key: str) -> Iterator[int]:
    """Processes that answer."""
    mark = str(b.world.attempt(key)).encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes()
            if b"fsyncs.clerk" in words and mark in words:
                yield int(process.name)


async def clerk_of(b: Any, key: str, before: int = 0) -> int:
    """The process that answers, once it is at work for somebody; another than `before`."""
    while True:
        for pid in clerks_of(b, key):
            with contextlib.suppress(OSError):
                busy = len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
                if busy and pid != before:
                    return pid
        await asyncio.sleep(0.01)


def kill_clerk(b: Any, key: str) -> None:
    for pid in clerks_of(b, key):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def run(main: Callable[[Any], Any], buckets: Any) -> None:
    async def body() -> None:
        async with buckets() as b:
            await main(b)
            assert b.leftovers() == []

    asyncio.run(body())


def test_it_is_there_when_fsync_returns(buckets: Any) -> None:
    write = """
file = open("/data/new", "wb", buffering=0)
file.write(b"x" * 3_000_000)
os.fsync(file)
told("first")
file.write(b"y" * 5)
os.fdatasync(file)
told("second")
file.write(b"z")
"""

    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch(program(write), b_durable="fsync"))
        await said(b, key, "first")
        assert b.store.listing(b.bucket) == {"new": 3_000_000}
        go(b, key)
        await said(b, key, "second")
        assert b.store.listing(b.bucket) == {"new": 3_000_005}
        go(b, key)
        held = await b.desk.done(key)
        assert held.outcome.exit_code == 0, held.outcome
        assert b.store.read(b.bucket, "new") == b"x" * 3_000_000 + b"yyyyyz"
        await b.desk.forget(key)

    run(main, buckets)


def test_a_frozen_store_holds_up_nobody_else(buckets: Any) -> None:
    write = """
import threading
def sync():
    with open("/data/new", "wb") as file:
        file.write(b"x" * 1000)
        file.flush()
        os.fsync(file)
        print("stored", flush=True)
told("ready")
waiting = threading.Thread(target=sync)
waiting.start()
for place in ("/tmp/a", "/workflow/b", "/dev/shm/c"):
    with open(place, "w") as file:
        for _ in range(50):
            file.write("x")
            file.flush()
            os.fsync(file)
told("others")
waiting.join()
"""

    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch(program(write), b_durable="fsync"))
        await said(b, key, "ready")
        b.store.freeze()
        try:
            go(b, key)
            assert "stored" not in await said(b, key, "others")
        finally:
            b.store.thaw()
        go(b, key)
        await said(b, key, "stored")
        held = await b.desk.done(key)
        assert held.outcome.exit_code == 0, held.outcome
        await b.desk.forget(key)

    run(main, buckets)


def test_an_upload_that_is_refused_is_an_error(buckets: Any) -> None:
    write = """
import errno
file = open("/data/new", "wb", buffering=0)
file.write(b"x")
told("ready")
try:
    os.fsync(file)
except OSError as error:
    told(errno.errorcode[error.errno])
os.fsync(file)
told("stored")
"""

    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch(program(write), b_durable="fsync"))
        await said(b, key, "ready")
        how = b.mount(key).directory / "how"
        right = how.read_text()
        wrong = json.loads(right)
        wrong["words"][1] = "bucket:No_Bucket_Is_Called_So"
        how.write_text(json.dumps(wrong))
        go(b, key)
        await said(b, key, "EIO")
        await b.desk.until(lambda: any("fsync failed once" in text for text in told(b, key)))
        how.write_text(right)
        go(b, key)
        await said(b, key, "stored")
        assert b.store.read(b.bucket, "new") == b"x"
        go(b, key)
        assert (await b.desk.done(key)).outcome.exit_code == 0
        await b.desk.forget(key)

    def told(b: Any, key: str) -> list[str]:
        return [one.message for phase in b.desk.held[key].phases for one in phase.mounts]

    run(main, buckets)


def test_who_answers_is_killed(buckets: Any) -> None:
    """What waits then is answered by the next one."""
    write = """
for number in range(3):
    with open(f"/data/{number}", "wb", buffering=0) as file:
        file.write(b"x" * 1000)
        told("ready")
        os.fsync(file)
        told("stored")
"""

    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch(program(write), b_durable="fsync"))
        clerk = 0
        for number in range(3):
            await said(b, key, "ready", number + 1)
            b.store.freeze()
            go(b, key)
            clerk = await clerk_of(b, key, clerk)
            os.kill(clerk, signal.SIGKILL)
            b.store.thaw()
            await said(b, key, "stored", number + 1)
            assert str(number) in b.store.listing(b.bucket)
            go(b, key)
        assert (await b.desk.done(key)).outcome.exit_code == 0
        await b.desk.forget(key)

    run(main, buckets)


BY_PYTHON = {
    "rename": """
with open("/data/t", "w") as file:
    file.write("x")
    file.flush()
    os.fsync(file)
os.rename("/data/t", "/data/final")
os.fsync(os.open("/data", os.O_RDONLY))
""",
    "sqlite": """
import sqlite3
there = sqlite3.connect("/data/db")
there.execute("create table t (a)")
there.execute("insert into t values (7)")
there.commit()
""",
    "removed": """
with open("/data/gone", "w") as file:
    file.write("x")
    file.flush()
    os.fsync(file)
    os.remove("/data/gone")
    os.fsync(file)
""",
    "empty": "os.fsync(open('/data/empty', 'w'))",
}
PROGRAMS = (
    "dd if=/dev/zero of=/data/dd bs=100k count=3 conv=fsync status=none",
    "echo hello > /data/sync; sync /data/sync",
    "echo hello > /data/data; sync -d /data/data",
    "mkdir /data/in; echo a > /data/in/a; echo b > /data/b; sync -f /data",
    *(
        f"{sys.executable} -c {shlex.quote('import os' + chr(10) + one)}"
        for one in BY_PYTHON.values()
    ),
)
STORED = {"dd": 300 << 10, "sync": 6, "data": 6, "in/a": 2, "b": 2, "final": 1, "empty": 0}


def test_programs(buckets: Any) -> None:
    lines = "\n".join(PROGRAMS)

    async def main(b: Any) -> None:
        command = f"set -e; mkfifo /workflow/go\n{lines}\necho ready; cat /workflow/go"
        launch = b.launch(command, b_durable="fsync", b_cache=CacheOptions(write_back=600.0))
        key = await b.desk.start(launch)
        await said(b, key, "ready")
        found = b.store.listing(b.bucket)
        database = found.pop("db")
        assert found == STORED
        copy = b.world.directory / "copy.db"
        copy.write_bytes(b.store.read(b.bucket, "db"))
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("select a from t").fetchall() == [(7,)]
        assert database == copy.stat().st_size
        go(b, key)
        held = await b.desk.done(key)
        assert held.outcome.exit_code == 0, held.outcome
        assert b.store.listing(b.bucket) == {**STORED, "db": database}
        await b.desk.forget(key)

    run(main, buckets)


RACE = """
import random, threading
lock, counter = threading.Lock(), {}
filler = bytes(300_000)
def write(name, number):
    descriptor = -1
    chance = random.Random(number)
    while not os.path.exists("/workflow/enough"):
        if descriptor < 0:
            descriptor = os.open("/data/" + name, os.O_RDWR | os.O_CREAT)
            if os.fstat(descriptor).st_size == 0:
                os.pwrite(descriptor, filler, 0)
        with lock:
            version = counter[name] = counter.get(name, 0) + 1
            os.pwrite(descriptor, version.to_bytes(8, "big"), 0)
        if chance.random() < 0.7:
            try:
                os.fsync(descriptor)
                told = name
            except OSError:
                told = "failed"
            with lock:
                print(told, version, flush=True)
        if chance.random() < 0.4:
            os.close(descriptor)
            descriptor = -1
threads = [threading.Thread(target=write, args=one) for one in
           [("own", 1), ("shared", 2), ("shared", 3), ("shared", 4)]]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("last", counter["own"], counter["shared"], flush=True)
"""


@pytest.mark.parametrize("kills", [False, True])
def test_older_content_never_replaces_newer(buckets: Any, kills: bool) -> None:
    """Uploads for `fsync` and those after `close` go on side by side, of files that are written
    all the while; also where who answers is killed all the while."""
    seconds = 1.5 * float(os.environ.get("MOORAGE_TEST_ROUNDS", "1"))
    command = f"exec {sys.executable} -c {shlex.quote('import os' + RACE)}"

    async def main(b: Any) -> None:
        store = open_bucket(b.store.access, b.bucket)
        launch = b.launch(command, b_durable="fsync", b_cache=CacheOptions(write_back=0.0))
        key = await b.desk.start(launch)
        least: dict[str, int] = {}
        text = ""
        looks = killed_at = 0
        began = time.monotonic()
        enough: Path | None = b.world.attempt(key) / "work" / "enough"
        while not re.search(r"last .*\n", text):
            page = await b.desk.ask(ReadLog(11, key, len(text)))
            text += page.data.decode()
            for name, version in re.findall(r"(own|shared) (\d+)\n", text):
                least[name] = max(least.get(name, 0), int(version))
            for name, wanted in list(least.items()):
                found = int.from_bytes(store.get(name)[:8], "big")
                assert found >= wanted, (name, found, wanted)
                least[name] = found
                looks += 1
            if not least:
                began = time.monotonic()
            elif enough and len(least) == 2 and looks > 2 and time.monotonic() - began > seconds:
                enough.touch()
                enough = None  # its directory goes with the job
            if kills and len(text) > killed_at:  # something was stored since
                killed_at = len(text)
                kill_clerk(b, key)
            await asyncio.sleep(0)
        assert (await b.desk.done(key)).outcome.exit_code == 0
        last = re.search(r"last (\d+) (\d+)", text)
        assert last is not None
        for name, wanted in zip(("own", "shared"), last.groups(), strict=True):
            assert int.from_bytes(store.get(name)[:8], "big") == int(wanted)
        await b.desk.forget(key)

    run(main, buckets)


def test_a_container_and_a_static_program(buckets: Any, tmp_path: Path) -> None:
    if not imagebuild.BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    archive = imagebuild.docker_archive(tmp_path / "box.tar", [imagebuild.busybox()])
    steps = [
        "mkfifo /workflow/go",
        "dd if=/dev/zero of=/data/new bs=1000 count=3 conv=fsync",
        "echo ready",
        "cat /workflow/go",
    ]

    async def main(b: Any) -> None:
        box = Container(f"docker-archive:{archive}")
        key = await b.desk.start(b.launch(*steps, container=box, b_durable="fsync"))
        await said(b, key, "ready")
        assert b.store.listing(b.bucket) == {"new": 3000}
        go(b, key)
        held = await b.desk.done(key)
        assert held.outcome.exit_code == 0, held.outcome
        await b.desk.forget(key)

    run(main, buckets)


def test_rclone_is_killed(buckets: Any) -> None:
    """The next one is another file system to the kernel. What was open in the old one is lost to
    the job, which is told so."""
    write = """
import threading
old = open("/data/old", "wb", buffering=0)
old.write(b"x")
told("ready")
try:
    os.fsync(old)
    print("stored what cannot be known", flush=True)
except OSError as error:
    print(error, flush=True)
never = threading.Event()
while True:
    try:
        new = open("/data/new", "wb", buffering=0)
        break
    except OSError:
        never.wait(0.05)
new.write(b"y" * 5)
os.fsync(new)
told("new is there")
"""

    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch(program(write), b_durable="fsync"))
        await said(b, key, "ready")
        b.kill_rclone(key)
        go(b, key)
        text = await said(b, key, "new is there")
        assert "stored what cannot be known" not in text
        assert b.store.listing(b.bucket)["new"] == 5
        go(b, key)
        assert (await b.desk.done(key)).outcome.exit_code == 0
        assert b.store.listing(b.bucket) == {"old": 1, "new": 5}
        await b.desk.forget(key)

    run(main, buckets)


def test_a_stop_ends_the_waiting(buckets: Any) -> None:
    write = """
file = open("/data/new", "wb", buffering=0)
file.write(b"x")
told("ready")
os.fsync(file)
"""

    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch(program(write), b_durable="fsync"))
        await said(b, key, "ready")
        b.store.freeze()
        try:
            go(b, key)
            await clerk_of(b, key)
            await b.desk.send(Stop(key, 30.0))
            await b.desk.reaches(key, "finishing")
        finally:
            b.store.thaw()
        assert (await b.desk.done(key)).outcome.kind == "stopped"
        assert b.store.listing(b.bucket) == {"new": 1}
        await b.desk.forget(key)

    run(main, buckets)
